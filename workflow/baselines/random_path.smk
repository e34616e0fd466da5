"""Random widths on the path of EDropout with curvature: what dense start and descent are worth without its choice."""


use rule cell as random_path with:
    input:
        fit="edropout/random_path.py",
        data=DATA,
    wildcard_constraints:
        method="random_path(-.+)?",
