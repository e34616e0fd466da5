"""Variational Dropout Sparsifies Deep Neural Networks, Molchanov, Ashukha & Vetrov, ICML 2017 (arXiv:1701.05369)."""


use rule cell as sparse_variational with:
    input:
        fit="baselines/sparse_variational.py",
        data=DATA,
    wildcard_constraints:
        method="sparse_variational(-.+)?",
