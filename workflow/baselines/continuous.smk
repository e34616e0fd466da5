"""Continuous Dropout, Shen et al., TNNLS 29(9), 2018 (arXiv:1911.12675)."""


use rule cell as continuous with:
    input:
        fit="baselines/continuous.py",
        data=DATA,
    wildcard_constraints:
        method="continuous(-.+)?",
