"""Read or download a dataset, split it with its seed, and store it as one checked file."""


rule data:
    output:
        DATA,
    log:
        "results/data/{dataset}.log",
    conda:
        "../../envs/suite.yaml"
    resources:
        # A path moves no number, so it is a resource and not a parameter: changing it reruns nothing.
        root=os.environ.get("EDROPOUT_DATA", config["data"]["root"]),
    params:
        section=lambda wildcards: json.dumps(
            {key: value for key, value in config["datasets"][wildcards.dataset].items() if key != "recipe"}
        ),
        download="--download" if config["data"].get("download", True) else "",
    shell:
        "python -m harness.datasets --name {wildcards.dataset:q} --data {params.section:q}"
        " --root {resources.root:q} --out {output:q} {params.download} 2>&1 | tee {log:q}"
