"""The dense network, that all methods are compared with and that many start from."""


# start.safetensors: the weights at recipe.prune_epoch, where the pruning methods start.
use rule cell as dense with:
    input:
        fit="baselines/dense.py",
        data=DATA,
    output:
        metrics="results/{dataset}/{model}/{method}/seed{seed}/metrics.json",
        start="results/{dataset}/{model}/{method}/seed{seed}/start.safetensors",
    wildcard_constraints:
        method="dense(-.+)?",
    params:
        start=lambda wildcards, output: f"--start {shlex.quote(output.start)}",
