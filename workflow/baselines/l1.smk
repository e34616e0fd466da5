"""Pruning Filters for Efficient ConvNets, Li et al., ICLR 2017 (arXiv:1608.08710)."""


use rule cell as l1 with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/l1.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="l1(-.+)?",
