"""IPruning, the authors' predecessor of EDropout, Salehinejad & Valaee, 2021 (arXiv:2102.05437)."""


use rule cell as ipruning with:
    input:
        fit="baselines/ipruning/fit.py",
        data=DATA,
    wildcard_constraints:
        method="ipruning(-.+)?",
