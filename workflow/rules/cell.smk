"""Train one cell. The dense network is the first; every baseline is a variation of the rule `cell`."""


# The pattern of all cells; it makes none itself, since no method has this name.
rule cell:
    input:
        fit="baselines/dense.py",
        data=DATA,
    output:
        metrics=f"{CELL}/metrics.json",
    log:
        f"{CELL}/log.txt",
    wildcard_constraints:
        method="(?!)",
    conda:
        "../../envs/suite.yaml"
    threads: recipe_threads
    resources:
        tables=tables_of,
        gpu=recipe_gpus,
    params:
        cell=cell_json,
        code=method_code,
        failures=lambda wildcards: failures(CELL.format(**wildcards)),
        inputs=named_inputs,
        start="",
    shell:
        "exec python -m harness.run {input.fit:q} --cell {params.cell:q} --code {params.code} --data {input.data:q}"
        " --out {output.metrics:q} --tables={resources.tables:q} {params.inputs} {params.start}"


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
