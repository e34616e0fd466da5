"""ChannelNets, Gao, Wang & Ji, NeurIPS 2018 (arXiv:1809.01330)."""


use rule cell as channelnet with:
    input:
        fit="baselines/channelnet.py",
        data=DATA,
    wildcard_constraints:
        method="channelnet(-.+)?",
