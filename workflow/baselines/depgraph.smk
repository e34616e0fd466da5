"""DepGraph, Fang et al., CVPR 2023 (arXiv:2301.12900), and its kin, by the library Torch-Pruning."""


use rule cell as depgraph with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/depgraph/fit.py",
        data=DATA,
    wildcard_constraints:
        method="depgraph(-.+)?",
