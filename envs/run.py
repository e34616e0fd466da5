"""Run a command in the project's environment, and make that environment first if it is missing or outdated.

    python3 envs/run.py snakemake --cores all
    python3 envs/run.py pytest

Standard library only. A pinned uv is put into .tools/ by pip, makes .venv/ and installs exactly what
requirements.lock lists, every file checked against its hash. `--lock` writes the lock anew from requirements.in.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
TOOLS = ROOT / ".tools"
REQUIREMENTS = ROOT / "envs" / "requirements.in"
LOCK = ROOT / "envs" / "requirements.lock"
UV = "uv==0.13.8"
MINIMUM_PYTHON = (3, 11)


def tool_environment() -> dict[str, str]:
    """Variables for the set-up and for the command: the system's certificates, and nothing that leads out of .venv/.

    PYTHONPATH, PYTHONHOME and their like name other libraries, PIP_USER another place for them, and without .pyc files
    every job compiles torch and timm anew. A home that cannot be written, as containers have it, is replaced for those
    who keep something there: uv, Snakemake, Weights & Biases.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    variables.setdefault("UV_SYSTEM_CERTS", "1")
    for name, usual in (("XDG_CACHE_HOME", "~/.cache"), ("XDG_DATA_HOME", "~/.local/share")):
        if not writable(Path(variables.get(name) or os.path.expanduser(usual))):
            variables[name] = str(TOOLS / usual.replace("~", "home"))
    variables["VIRTUAL_ENV"] = str(ENVIRONMENT)
    variables["PATH"] = f"{ENVIRONMENT / 'bin'}{os.pathsep}{variables.get('PATH', '')}"
    return variables


def writable(folder: Path) -> bool:
    """Whether we may write a folder, or make it."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return folder.is_absolute() and nearest.is_dir() and os.access(nearest, os.W_OK)


def uv(*arguments: str) -> None:
    """Run the pinned uv, installing it into .tools/ at first use."""
    folder = TOOLS / UV.replace("==", "-")
    executable = folder / "bin" / "uv"
    if not executable.exists():
        if importlib.util.find_spec("pip") is None:
            sys.exit("envs/run.py needs pip: install python3-pip, then run the same command again")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", "--target", str(folder), UV], check=True, env=tool_environment())
    subprocess.run([str(executable), *arguments], check=True, env=tool_environment(), cwd=ROOT)


def lock() -> None:
    """Resolve requirements.in into requirements.lock."""
    options = ["--generate-hashes", "--universal", "--python-version", "3.11", "--quiet"]
    plain = ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    source, target = (str(path.relative_to(ROOT)) for path in (REQUIREMENTS, LOCK))
    uv("pip", "compile", source, *options, *plain, "--output-file", target)


def synchronise() -> None:
    """Make .venv hold exactly what the lock lists; instant when it already does.

    The stamp is written last, so an interrupted set-up is simply done again.
    """
    stamp = ENVIRONMENT / "lock.sha256"
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "set-up.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == digest:
            return
        print(f"setting up {ENVIRONMENT} (once)", file=sys.stderr)
        uv("venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
        uv("pip", "sync", "--quiet", "--require-hashes", str(LOCK))
        stamp.write_text(digest)


def main(arguments: list[str]) -> None:
    if sys.version_info < MINIMUM_PYTHON:
        sys.exit(f"envs/run.py needs Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer, this is {sys.version}")
    if not arguments:
        sys.exit(__doc__)
    try:
        if arguments == ["--lock"]:
            return lock()
        synchronise()
    except subprocess.CalledProcessError as error:
        sys.exit(f"the set-up failed at: {' '.join(map(str, error.cmd))}")
    command = ENVIRONMENT / "bin" / arguments[0]
    program = str(command) if command.exists() else arguments[0]
    try:
        os.execvpe(program, [program, *arguments[1:]], tool_environment())
    except FileNotFoundError:
        sys.exit(f"no program '{arguments[0]}' in {ENVIRONMENT / 'bin'} or on the PATH")


if __name__ == "__main__":
    main(sys.argv[1:])
