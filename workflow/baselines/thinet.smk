"""ThiNet, Luo et al., ICCV 2017 (arXiv:1707.06342); the journal variant: TPAMI 41(10), 2019."""


use rule cell as thinet with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/thinet/fit.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="thinet(-.+)?",
