"""Dropout, Srivastava et al., JMLR 15, 2014; spatial: Tompson et al., CVPR 2015; early and late: Liu et al., ICML 2023."""


use rule cell as dropout with:
    input:
        fit="baselines/dropout.py",
        data=DATA,
    wildcard_constraints:
        method="dropout(-.+)?",
