"""Where Snakemake works and what its jobs see: this checkout, whatever folder and whatever settings it is started with."""

import os
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent.parent


def link_the_checkout():
    """Under `--directory`, rules find the files of the checkout by the relative paths that they name.

    A config/ of that folder's own is its configuration.
    """
    for name in ("architectures", "baselines", "config", "edropout", "paper", "theory", "workflow"):
        link = Path(name)
        try:
            if not os.path.lexists(link):
                link.symlink_to(ROOT / name)
            elif name != "config" and not (link.exists() and link.samefile(ROOT / name)):
                sys.exit(f"{link.absolute()} is not {ROOT / name}: choose another --directory or remove it")
        except OSError as error:
            sys.exit(f"{Path.cwd()} cannot be written ({error.strerror}): choose another --directory")


if not Path.cwd().samefile(ROOT):
    link_the_checkout()

# Python's own variables, as a shell, a notebook or a cluster's modules set them, would have jobs run other libraries than
# those that the lock installed, other code than this checkout's, or none, or compile torch anew in each job.
for name in [name for name in os.environ if name.startswith("PYTHON") or name == "MPLBACKEND"]:
    del os.environ[name]
os.environ |= {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
