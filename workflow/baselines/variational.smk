"""Variational Dropout and the Local Reparameterization Trick, Kingma, Salimans & Welling, NeurIPS 2015 (arXiv:1506.02557)."""


use rule cell as variational with:
    input:
        fit="baselines/variational.py",
        data=DATA,
    wildcard_constraints:
        method="variational(-.+)?",
