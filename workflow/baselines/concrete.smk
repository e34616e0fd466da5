"""Concrete Dropout, Gal, Hron & Kendall, NeurIPS 2017 (arXiv:1705.07832)."""


use rule cell as concrete with:
    input:
        fit="baselines/concrete.py",
        data=DATA,
    wildcard_constraints:
        method="concrete(-.+)?",
