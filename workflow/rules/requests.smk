"""What is asked for on the command line and of the methods: one sentence where it cannot be."""

from snakemake import cli

from harness.plan import hyperparameters, validation

PLANNING = (
    *("dryrun", "report", "dag", "rulegraph", "filegraph", "d3dag", "summary", "detailed_summary", "lint"),
    *("list_rules", "list_target_rules", "unlock"),
)
"""Options with which Snakemake runs no job."""


def request():
    """The command line, or what an empty one says where a program runs Snakemake."""
    given = sys.argv[1:] if Path(sys.argv[0]).stem in ("snakemake", "__main__") else []
    return cli.get_argument_parser().parse_known_args(given)[0]


def check_methods():
    """Every value under `methods` against the `fit` of the rule that makes the method."""
    for method, given in config["methods"].items():
        for made in workflow.rules:
            fit = made.input.get("fit")
            if fit and re.fullmatch(made.wildcard_constraints.get("method", "(?!)"), method):
                hyperparameters.check_hyperparameters(method, given or {}, ROOT / fit)


def check_targets(targets):
    """Every target that is no file: a table or a rule; and every cell: one that config.yaml defines."""
    names = [*config["tables"], *(rule.name for rule in workflow.rules), "default"]
    for target in sorted(targets):
        if cell := re.match(CELL.replace("{", "(?P<").replace("}", ">[^/]+)"), target):
            grid.cell(config, **cell.groupdict())
        elif "/" not in target and target not in names:
            hint = validation.suggestion(target, names, "there are")
            what = "no table and no rule"  # In one line with what follows, the linter would read it as one.
            raise configuration.ConfigError(f"{what} is called '{target}': {hint}")


def check_numbers():
    """Snakemake would wait for ever for a core or a job that it may not use."""
    settings = workflow.resource_settings
    numbers = {"--cores (or --jobs)": settings.cores, "--jobs": settings.nodes, "--local-cores": settings.local_cores}
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise configuration.ConfigError(f"{option} is {number}, and nothing runs with less than 1: give more")


asked = request()
only_plans = any(getattr(asked, option, None) not in (None, False) for option in PLANNING)
if workflow.is_main_process:
    with one_sentence():
        check_methods()
        check_targets(asked.targets)
        check_numbers()
