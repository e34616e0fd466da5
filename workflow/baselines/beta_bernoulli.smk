"""Adaptive Network Sparsification with Dependent Variational Beta-Bernoulli Dropout, Lee et al., arXiv:1805.10896."""


use rule cell as beta_bernoulli with:
    input:
        fit="baselines/beta_bernoulli.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="beta_bernoulli(-.+)?",
