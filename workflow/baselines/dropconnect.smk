"""Regularization of Neural Networks using DropConnect, Wan et al., ICML 2013."""


use rule cell as dropconnect with:
    input:
        fit="baselines/dropconnect.py",
        data=DATA,
    wildcard_constraints:
        method="dropconnect(-.+)?",
