"""Log a table's files to Weights & Biases as one artifact of a run with job type `paper`; a broken W&B stops nothing.

    python -m paper.report.artifacts --table quick --folder results/paper --out results/paper/quick/artifacts.txt

The run's id is the hash of the table's rows: rendering the same numbers again continues the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/paper"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    files = rendered(options.table, options.folder)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.pop("WANDB_SERVICE", None)  # A service of the caller's has another working directory and another end.
    try:
        log(options.table, options.folder, files)
        outcome = f"{len(files)} files logged to Weights & Biases ({os.environ['WANDB_MODE']})"
    except Exception as error:  # Whatever its service, network or disk raises: the files themselves are complete.
        reason = " ".join(str(error).split())
        outcome = f"Weights & Biases failed ({type(error).__name__}: {reason}); the files are complete without it"
    print(outcome)
    options.out.write_text("\n".join([outcome, *map(str, files)]) + "\n", encoding="utf-8")
    return 0


def rendered(table: str, folder: Path) -> list[Path]:
    """The table in all its forms, the PDF, the figures and the statistics."""
    forms = [folder / f"{table}.{suffix}" for suffix in ("csv", "md", "tex", "html", "pdf")]
    parts = (path for part in ("figures", "statistics") for path in (folder / table / part).glob("[!.]*"))
    return [path for path in [*forms, *sorted(parts)] if path.is_file()]


def log(table: str, folder: Path, files: list[Path]) -> None:
    """One run, one artifact with all files under their own names."""
    import wandb

    rows = (folder / f"{table}.csv").read_bytes()
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "edropout"),
        id=hashlib.sha256(rows).hexdigest()[:16],
        name=f"paper/{table}",
        group=table,
        job_type="paper",
        dir=str((folder / table).resolve()),
        resume="allow",
        settings=wandb.Settings(
            console="off", x_disable_stats=True, init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", "30"))
        ),
    )
    artifact = wandb.Artifact(f"paper-{table}", type="paper")
    for path in files:
        artifact.add_file(str(path), name=str(path.relative_to(folder)))
    run.log_artifact(artifact)
    run.finish()


if __name__ == "__main__":
    sys.exit(main())
