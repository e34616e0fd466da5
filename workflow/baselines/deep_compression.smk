"""Deep Compression, Han et al., ICLR 2016 (arXiv:1510.00149); its pruning stage: NeurIPS 2015 (arXiv:1506.02626)."""


use rule cell as deep_compression with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/deep_compression/fit.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="deep_compression(-.+)?",
