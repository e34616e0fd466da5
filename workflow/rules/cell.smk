"""Train one cell: every method is a variation of the rule `cell`, and whether it has to run is read in its result."""


# The pattern of all cells; it makes none itself, since no method has this name.
rule cell:
    input:
        fit="baselines/dense.py",
        data=DATA,
    output:
        metrics=f"{CELL}/metrics.json",
    log:
        f"{CELL}/job.txt",
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
        inputs=named_inputs,
        start="",
    shell:
        "exec python -m harness.run {input.fit:q} --cell {params.cell:q} --data {input.data:q}"
        " --out {output.metrics:q} --log {log:q} --tables={resources.tables:q} {params.inputs} {params.start}"
