"""Read or download a dataset, split it with its seed, and store it as one checked file."""


rule data:
    output:
        PREPARED,
    log:
        "results/data/{dataset}.log",
    conda:
        "../../envs/suite.yaml"
    resources:
        # Where data comes from moves no number, so these are resources and no parameters: changing them reruns nothing.
        root=os.environ.get("EDROPOUT_DATA") or config["data"]["root"],
        download="--download" if config["data"].get("download", True) else "--no-download",
    params:
        section=data_json,
    shell:
        "python -m harness.datasets --name {wildcards.dataset:q} --data {params.section:q}"
        " --root {resources.root:q} --out {output:q} {resources.download} 2>&1 | tee {log:q}"
