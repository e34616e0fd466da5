"""Dropout: A Simple Way to Prevent Neural Networks from Overfitting, Srivastava et al., JMLR 15, 2014, section 10."""


use rule cell as gaussian with:
    input:
        fit="baselines/gaussian.py",
        data=DATA,
    wildcard_constraints:
        method="gaussian(-.+)?",
