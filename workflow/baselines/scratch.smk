"""Rethinking the Value of Network Pruning, Liu et al., ICLR 2019 (arXiv:1810.05270)."""


# The variant's name says whose architecture it is: scratch-l1-30 trains what l1-30 left.
use rule cell as scratch with:
    input:
        fit="baselines/scratch.py",
        data=DATA,
        source=scratch_source,
    wildcard_constraints:
        method="scratch-.+",
