"""The theorems of dropout, each checked by experiments of its own, and the page that shows what was observed."""

# One rule for each, so that they run side by side, each is a target, and editing one runs it alone.
for theorem in THEOREMS:

    rule:
        name:
            theorem
        input:
            ancient(f"theory/{theorem}.py"),
            unless_noted(
                functools.partial(code.code_hash, ROOT / "theory" / f"{theorem}.py"),
                f"results/theory/{theorem}/made_of.txt",
                f"results/theory/{theorem}/rows.csv",
            ),
        output:
            rows=f"results/theory/{theorem}/rows.csv",
            verdicts=f"results/theory/{theorem}/verdicts.csv",
            note=f"results/theory/{theorem}/made_of.txt",
        log:
            f"results/theory/{theorem}/log.txt",
        conda:
            "../../envs/suite.yaml"
        resources:
            root=DATA_ROOT,
            download=DOWNLOAD,
        params:
            folder=subpath(output.rows, parent=True),
            code=lambda wildcards, input: code.code_hash(input[0]),
        shell:
            "python -m theory.run {input:q} --root {resources.root:q} {resources.download}"
            " --out {params.folder:q} 2>&1 | tee {log:q} && echo {params.code} > {output.note:q}"


rule theory_page:
    input:
        "paper/figures/style.mplstyle",
        unless_noted(rendered.code, "results/paper/theory/made_of.txt", "results/paper/theory.csv"),
        expand("results/theory/{theorem}/{table}.csv", theorem=THEOREMS, table=["rows", "verdicts"]),
    output:
        report(
            "results/paper/theory.csv",
            caption="../report/theory.rst",
            category="theory",
            labels={"what": "verdicts (CSV)"},
        ),
        "results/paper/theory.md",
        note="results/paper/theory/made_of.txt",
        figures=report(
            directory("results/paper/theory/figures"),
            patterns=["{figure}.png"],
            caption="../report/theory.rst",
            category="theory",
            labels={"what": "{figure}"},
        ),
    log:
        "results/paper/logs/theory_page.log",
    conda:
        "../../envs/paper.yaml"
    params:
        folders=expand("results/theory/{theorem}", theorem=THEOREMS),
        code=rendered.code(),
    shell:
        "python -m paper.theory.write --theorems {params.folders:q} --out-stem results/paper/theory 2>&1 | tee {log:q}"
        " && echo {params.code} > {output.note:q}"


rule theory_report:
    input:
        "paper/report/paper.typ",
        rules.theory_page.output,
    output:
        report("results/paper/theory.pdf", caption="../report/theory.rst", category="theory", labels={"what": "PDF"}),
    log:
        "results/paper/logs/theory_report.log",
    conda:
        "../../envs/paper.yaml"
    shell:
        "python -m paper.report.typeset --theory --out {output:q} 2>&1 | tee {log:q}"


rule theory:
    input:
        rules.theory_page.output,
        rules.theory_report.output,
