"""Random pruning, the control: which units EDropout keeps matters only as far as it beats this."""


# The network starts from scratch, as EDropout does.
use rule cell as random with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/random.py",
        data=DATA,
    wildcard_constraints:
        method="random(-(?!dense).+)?",


# The same from the trained dense network.
use rule cell as random_dense with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/random.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="random-dense(-.+)?",
