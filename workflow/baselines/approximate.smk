"""Approximate Random Dropout, Song et al., DATE 2019 (arXiv:1805.08939)."""


use rule cell as approximate with:
    input:
        fit="baselines/approximate.py",
        data=DATA,
    wildcard_constraints:
        method="approximate(-.+)?",
