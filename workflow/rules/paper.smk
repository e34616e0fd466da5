"""From finished cells to tables, statistics, figures and the PDF. Nothing here imports torch."""


report: "../report/workflow.rst"


# The plan goes through a file: thousands of cells do not fit on a command line.
rule listing:
    input:
        ancient("workflow/report/cells.json.j2"),
    output:
        f"{PAPER}/cells.json",
    log:
        "results/paper/logs/{table}.listing.log",
    localrule: True
    params:
        cells=lambda wildcards: json.dumps(table_cells(wildcards.table), indent=1),
    template_engine:
        "jinja2"


rule collect:
    input:
        table_results,
        cells=rules.listing.output[0],
    output:
        rows=report(
            f"{PAPER}.csv",
            caption="../report/rows.rst",
            category="{table}",
            subcategory="tables",
            labels={"what": "tidy rows (CSV)"},
        ),
        history=f"{PAPER}/history.csv",
        layers=f"{PAPER}/layers.csv",
        reliability=f"{PAPER}/reliability.csv",
        setup=f"{PAPER}/setup.json",
        made_of=f"{PAPER}/made_of.txt",
    log:
        "results/paper/logs/{table}.collect.log",
    conda:
        "../../envs/paper.yaml"
    shell:
        "python -m paper.rows.collect --table {wildcards.table:q} --cells {input.cells:q} --out {output.rows:q} 2>&1 | tee {log:q}"


rule statistics:
    input:
        rules.collect.output.rows,
    output:
        directory(f"{PAPER}/statistics"),
    log:
        "results/paper/logs/{table}.statistics.log",
    conda:
        "../../envs/paper.yaml"
    shell:
        "python -m paper.statistics.compute --csv {input:q} --out {output:q} 2>&1 | tee {log:q}"


rule tables:
    input:
        "paper/published.csv",
        rows=rules.collect.output.rows,
        statistics=rules.statistics.output[0],
    output:
        report(
            f"{PAPER}.html",
            caption="../report/table.rst",
            category="{table}",
            subcategory="tables",
            labels={"what": "table"},
        ),
        f"{PAPER}.md",
        f"{PAPER}.tex",
    log:
        "results/paper/logs/{table}.tables.log",
    conda:
        "../../envs/paper.yaml"
    params:
        stem=lambda wildcards, output: os.path.splitext(output[0])[0],
    shell:
        "python -m paper.tables.write --csv {input.rows:q} --statistics {input.statistics:q}"
        " --out-stem {params.stem:q} 2>&1 | tee {log:q}"


rule figures:
    input:
        "paper/figures/style.mplstyle",
        rows=rules.collect.output.rows,
        history=rules.collect.output.history,
        layers=rules.collect.output.layers,
        reliability=rules.collect.output.reliability,
        statistics=rules.statistics.output[0],
    output:
        report(
            directory(f"{PAPER}/figures"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="{table}",
            subcategory="figures",
            labels={"what": "{figure}"},
        ),
    log:
        "results/paper/logs/{table}.figures.log",
    conda:
        "../../envs/paper.yaml"
    threads: 2
    shell:
        "python -m paper.figures.draw --csv {input.rows:q} --statistics {input.statistics:q} --out {output:q}"
        " --jobs {threads} 2>&1 | tee {log:q}"


rule table_report:
    input:
        "paper/report/paper.typ",
        "paper/published.csv",
        rows=rules.collect.output.rows,
        setup=rules.collect.output.setup,
        statistics=rules.statistics.output[0],
        figures=rules.figures.output[0],
    output:
        report(
            f"{PAPER}.pdf",
            caption="../report/pdf.rst",
            category="{table}",
            subcategory="tables",
            labels={"what": "PDF"},
        ),
    log:
        "results/paper/logs/{table}.table_report.log",
    conda:
        "../../envs/paper.yaml"
    shell:
        "python -m paper.report.typeset --tables {wildcards.table:q} --out {output:q} 2>&1 | tee {log:q}"


# All tables of `build` in one PDF, and the theorems if `theory` says so.
rule report:
    input:
        "paper/report/paper.typ",
        "paper/published.csv",
        unless_noted(lambda: " ".join(REPORTED), "results/paper/report.txt", "results/paper/report.pdf"),
        expand(rules.table_report.input[2:], table=config["build"]),
        rules.theory_page.output if WITH_THEORY else [],
    output:
        pdf="results/paper/report.pdf",
        note="results/paper/report.txt",
    log:
        "results/paper/logs/report.log",
    conda:
        "../../envs/paper.yaml"
    params:
        tables=config["build"],
        theory="--theory" if WITH_THEORY else "",
    shell:
        "python -m paper.report.typeset --tables {params.tables:q} {params.theory} --out {output.pdf:q} 2>&1 | tee {log:q}"
        " && echo {params.tables:q} {params.theory} > {output.note:q}"


# The last step: says where everything is, and fails if a cell has no numbers.
rule announce:
    input:
        rules.tables.output,
        rules.table_report.output,
        rows=rules.collect.output.rows,
        made_of=rules.collect.output.made_of,
        figures=rules.figures.output[0],
    output:
        f"{PAPER}.txt",
    log:
        "results/paper/logs/{table}.announce.log",
    conda:
        "../../envs/paper.yaml"
    shell:
        "python -m paper.report.announce --table {wildcards.table:q} --out {output:q} 2>&1 | tee {log:q}"


rule artifacts:
    input:
        rules.tables.output,
        rules.table_report.output,
        rules.collect.output.rows,
        rules.figures.output[0],
    output:
        f"{PAPER}/artifacts.txt",
    log:
        "results/paper/logs/{table}.artifacts.log",
    conda:
        "../../envs/paper.yaml"
    shell:
        "python -m paper.report.artifacts --table {wildcards.table:q} --out {output:q} 2>&1 | tee {log:q}"
