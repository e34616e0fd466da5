"""Variational Bayesian Dropout with a Hierarchical Prior, Liu et al., CVPR 2019 (arXiv:1811.07533)."""


use rule cell as variational_bayesian with:
    input:
        fit="baselines/variational_bayesian.py",
        data=DATA,
    wildcard_constraints:
        method="variational_bayesian(-.+)?",
