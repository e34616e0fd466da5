"""A real Slurm of one node, started by hand in a folder: munge, slurmctld and slurmd, with or without accounting.

Debian's slurm-wlm and munge suffice; accounting needs slurmdbd and mariadb-server as well.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness.runs.supervisor import end_with_parent

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel")
FOR_ACCOUNTS = ("slurmdbd", "mariadbd", "mariadb-install-db")
PATIENCE_SECONDS = 60
SLURM = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
KillWait=20
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=100000 Gres=gpu:4
PartitionName=short Nodes=ALL Default=YES MaxTime=30 OverSubscribe=FORCE:1
{accounting}
"""
ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/none
"""
DATABASE = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm
"""


def missing(*, accounting: bool = False) -> str:
    """What must be installed first; empty if nothing."""
    names = [name for name in (*NEEDED, *(FOR_ACCOUNTS if accounting else ())) if not shutil.which(name, path=path())]
    return f"{', '.join(names)} not installed: apt-get install slurm-wlm munge slurmdbd mariadb-server" if names else ""


def path() -> str:
    """Daemons lie in sbin, which a user's PATH may lack."""
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


@contextlib.contextmanager
def cluster(folder: Path, *, accounting: bool = False, cores: int = 8) -> Iterator[dict[str, str]]:
    """A running cluster whose partition ends jobs after half an hour; yields the variables of its users."""
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    words = {"folder": folder, "host": socket.gethostname().split(".")[0], "cores": cores}
    words |= {"user": pwd.getpwuid(os.getuid()).pw_name, "controller": free_port(), "node": free_port()}
    port = free_port()
    text = SLURM.format(**words, accounting=ACCOUNTING.format(folder=folder, port=port) if accounting else "")
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(
        f"NodeName={words['host']} Name=gpu File=/dev/null,/dev/zero,/dev/full,/dev/random\n"
    )
    # Snakemake keeps Slurm's variables from its jobs, which elsewhere find the configuration where it usually lies.
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{srun.parent}{os.pathsep}{path()}"}
    environment = {**os.environ, **variables}
    with contextlib.ExitStack() as daemons:

        def start(*command: object) -> None:
            daemons.enter_context(daemon(folder, [str(word) for word in command], environment))

        (folder / "munge.key").touch(mode=0o600)
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        files = {name: folder / f"munge.{name}" for name in ("key", "log", "pid", "seed")}
        options = [f"--{name}-file={file}" for name, file in files.items()]
        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *options)
        wait_for(lambda: (folder / "munge.socket").exists(), "munged", folder)
        if accounting:
            database = start_database(folder, start, environment)
            (folder / "slurmdbd.conf").touch(mode=0o600)
            (folder / "slurmdbd.conf").write_text(DATABASE.format(**words, port=port, database=database))
            start("slurmdbd", "-D")
            wait_for(lambda: answers(["sacctmgr", "--immediate", "show", "cluster"], environment), "slurmdbd", folder)
        start("slurmctld", "-D", "-i")
        start("slurmd", "-D", "-N", words["host"])
        wait_for(lambda: "idle" in output(["sinfo", "--noheader", "-o", "%T"], environment), "slurmd", folder)
        yield variables


def start_database(folder: Path, start, environment: dict[str, str]) -> int:
    """A MariaDB with an empty database for Slurm; its port."""
    data, port = folder / "database", free_port()
    user = f"--user={pwd.getpwuid(os.getuid()).pw_name}"
    install = [
        "mariadb-install-db",
        "--no-defaults",
        user,
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
    ]
    subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    places = [f"--datadir={data}", f"--socket={folder}/database.socket", f"--pid-file={folder}/database.pid"]
    start("mariadbd", "--no-defaults", user, *places, f"--port={port}", "--bind-address=127.0.0.1")
    wait_for(lambda: listens(port), "mariadbd", folder)
    return port


@contextlib.contextmanager
def daemon(folder: Path, command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A process that is ended at the end, with all that it started."""
    with open(folder / f"{command[0]}.out", "ab") as out:
        options = {"start_new_session": True, "preexec_fn": end_with_parent}  # ... also with tests that are killed
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, **options)
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def answers(command: list[str], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def wait_for(ready, name: str, folder: Path) -> None:
    """Wait until `ready()`; a daemon that does not come up is a RuntimeError with the end of its log."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            logs = [path for path in (folder / f"{name}.out", folder / f"{name}.log") if path.exists()]
            raise RuntimeError(
                f"{name} is not up: {''.join(path.read_text(errors='replace')[-1500:] for path in logs)}"
            )
        time.sleep(0.2)
