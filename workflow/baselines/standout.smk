"""Adaptive Dropout for Training Deep Neural Networks, Ba & Frey, NeurIPS 2013."""


use rule cell as standout with:
    input:
        fit="baselines/standout.py",
        data=DATA,
    wildcard_constraints:
        method="standout(-.+)?",
