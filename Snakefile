"""Entry point: `snakemake --cores all` makes the tables that config/config.yaml lists under `build`."""


include: "workflow/Snakefile"


# Included rules carry no default target.
rule default:
    default_target: True
    input:
        rules.all.input,
