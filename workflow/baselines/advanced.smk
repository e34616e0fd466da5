"""Advanced Dropout: A Model-free Methodology for Bayesian Dropout Optimization, Xie et al., TPAMI 44(9), 2022."""


use rule cell as advanced with:
    input:
        fit="baselines/advanced.py",
        data=DATA,
    wildcard_constraints:
        method="advanced(-.+)?",
