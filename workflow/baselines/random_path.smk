"""Random widths by the path of EDropout with curvature: what the choice of units is worth beyond dense start and descent."""


use rule cell as random_path with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/random_path.py",
        data=DATA,
    wildcard_constraints:
        method="random_path(-.+)?",
