"""Deep Compression, Han et al., ICLR 2016 (arXiv:1510.00149); its pruning stage: NeurIPS 2015 (arXiv:1506.02626)."""


def edropout_unless_own_ratio(wildcards):
    """EDropout's cell, whose kept ratio a method without one of its own takes over."""
    own = (config["methods"][wildcards.method] or {}).get("prune_ratio")
    return {} if own is not None else {"edropout": EDROPOUT.format(**wildcards)}


use rule cell as deep_compression with:
    input:
        unpack(edropout_unless_own_ratio),
        fit="baselines/deep_compression.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="deep_compression(-.+)?",
