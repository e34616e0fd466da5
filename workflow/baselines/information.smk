"""Information Dropout: Learning Optimal Representations Through Noisy Computation, Achille & Soatto, TPAMI 2018."""


use rule cell as information with:
    input:
        fit="baselines/information.py",
        data=DATA,
    wildcard_constraints:
        method="information(-.+)?",
