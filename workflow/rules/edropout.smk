"""EDropout, Salehinejad & Valaee, IEEE TNNLS 33(10), 2021 (arXiv:2006.04270)."""


use rule cell as edropout with:
    input:
        fit="edropout/method.py",
        data=DATA,
    wildcard_constraints:
        method="edropout(-.+)?",
