"""Read or download a dataset, split it with its seed, and store it as one checked file."""


rule data:
    output:
        "results/data/{dataset}-{section}.safetensors",
    log:
        "results/data/{dataset}-{section}.log",
    conda:
        "../../envs/suite.yaml"
    resources:
        root=DATA_ROOT,
        download=DOWNLOAD,
    params:
        section=data_json,
    shell:
        "python -m harness.sources.prepare --name {wildcards.dataset:q} --data {params.section:q}"
        " --root {resources.root:q} --out {output:q} {resources.download} 2>&1 | tee {log:q}"


# All that the tables under `build` need, for machines that have no network later.
rule prepare:
    input:
        sorted(
            {grid.prepared(config, name) for table in config["build"] for name in config["tables"][table]["datasets"]}
        ),
