"""DropBlock: A Regularization Method for Convolutional Networks, Ghiasi, Lin & Le, NeurIPS 2018 (arXiv:1810.12890)."""


use rule cell as dropblock with:
    input:
        fit="baselines/dropblock.py",
        data=DATA,
    wildcard_constraints:
        method="dropblock(-.+)?",
