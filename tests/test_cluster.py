"""The cluster profiles: Slurm's on a real one-node Slurm on loopback, Kubernetes' on a stand-in for its API.

Slurm needs Debian's `slurm-wlm` and `munge` (no systemd, no database, no accounting) and runs as whoever runs the test.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from loopback_kubernetes import Cluster

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
TRAINING = {"total_nimg": 1600, "snapshots": [1600], "tick_nimg": 160, "monitor_images": 16}
CHECKPOINTS = {"whole": 1600, "killed": 160, "told": 1600}
"""Run to the pictures between its checkpoints, in which alone the runs differ."""

SLURM_CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=loopback NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000000
PartitionName=all Nodes=loopback Default=YES MaxTime=INFINITE State=UP
"""


def wait_for(what: str, found: Callable[[], bool], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return connection.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find a cluster of one node."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs `pip install -e '.[slurm]'`")
    if missing := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"no {', '.join(missing)}: needs the packages slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    facts = {"host": socket.gethostname().partition(".")[0], "folder": folder, "user": os.getuid()}
    conf = folder / "slurm.conf"
    conf.write_text(SLURM_CONF.format(controller_port=free_port(), node_port=free_port(), **facts))
    # The job step that the executor plugin starts keeps no SLURM_* variable, so srun would look for /etc/slurm.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun", path=PATH)} "$@"\n')
    srun.chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{folder / 'bin'}{os.pathsep}{PATH}"}

    munge = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")}
    daemons = [
        start(
            folder, environment, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge.values()
        )
    ]
    try:
        wait_for("the socket of munged", (folder / "munge.socket").exists, 10)
        daemons.append(start(folder, environment, "slurmctld", "-D"))
        daemons.append(start(folder, environment, "slurmd", "-D", "-N", "loopback"))
        wait_for("an idle node", lambda: "idle" in output(environment, "sinfo", "-h", "-o", "%T"), 30)
        yield environment
    finally:
        output(environment, "scancel", f"--user={os.getuid()}")
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(10)


def start(folder: Path, environment: dict[str, str], name: str, *arguments: str) -> subprocess.Popen:
    program = shutil.which(name, path=PATH)
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen([program, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT)


def output(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def study(folder: Path) -> Path:
    """A copy of the tree, whose study trains the runs of `CHECKPOINTS`."""
    for name in ("pygan", "pipeline", "workflow", "profiles", "csrc"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "CMakeLists.txt", folder)
    values = json.loads(json.dumps(yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())))
    base = values["runs"]["base"] | {"training": values["runs"]["base"]["training"] | TRAINING}
    values["runs"] = {
        run: base | {"training": base["training"] | {"checkpoint_nimg": nimg}} for run, nimg in CHECKPOINTS.items()
    }
    values |= {"bank": [], "claims": [], "anchors": {}, "output": "results"}
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


def without_gpus(profile: Path, *runs: str) -> None:
    """Say in a profile that these trainings need no GPU, as its last comment tells."""
    values = yaml.safe_load(profile.read_text())
    values["set-resources"] |= {f"train_{run}": {"gpu": 0} for run in runs}
    profile.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_a_profile_resumes_jobs_and_names_rules_that_are_there(name: str) -> None:
    profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    rules = set(re.findall(r"^(?:rule|checkpoint) (\w+):", text, flags=re.M))
    assert profile["set-resources"].keys() <= rules
    assert (profile["executor"], profile["retries"], profile["rerun-incomplete"]) == (name, 3, True)


def training(tree: Path, run: str) -> tuple[Path, int] | None:
    """The work folder of a training and the process that holds it."""
    for lock in tree.glob("work/train/*/lock"):
        if (holder := lock.read_text()).endswith("\n"):  # pid N on host H
            pid = int(holder.split()[1])
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and f'"run":"{run}"' in command.read_text():
                return lock.parent, pid
    return None


def interrupt(tree: Path, slurm: dict[str, str], cluster: subprocess.Popen, log: Path) -> None:
    """Kill the process of one training at its first checkpoint, and have Slurm tell another that its time is up."""
    waiting = {"killed": "state/000000000160", "told": "out/stats.jsonl"}

    def all_interrupted() -> bool:
        assert cluster.poll() is None, log.read_text()
        for run, file in tuple(waiting.items()):
            if (found := training(tree, run)) is None or not (found[0] / file).exists():
                continue
            if run == "killed":
                os.kill(found[1], signal.SIGKILL)
            else:
                jobs = output(slurm, "squeue", "-h", "-o", "%i %k").splitlines()
                (job,) = (line.split()[0] for line in jobs if f"rule_train_{run}_" in line)
                subprocess.run(["scancel", "--signal=TERM", job], env=slurm, check=True)
            del waiting[run]
        return not waiting

    wait_for("the interruption of two trainings", all_interrupted)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_job_is_submitted_again_and_continues(slurm: dict[str, str], tmp_path: Path) -> None:
    tree = study(tmp_path / "tree")
    without_gpus(tree / "profiles" / "slurm" / "config.yaml", *CHECKPOINTS)
    results = {run: f"results/train/{run}/seed0/snapshots/000001600.safetensors" for run in CHECKPOINTS}
    command = [sys.executable, "-m", "snakemake", *results.values(), "--workflow-profile", "profiles/slurm"]
    options = ["--slurm-init-seconds-before-status-checks", "1", "--verbose"]
    log = tmp_path / "snakemake.log"
    with log.open("w") as file:
        cluster = subprocess.Popen([*command, *options], cwd=tree, env=slurm, stdout=file, stderr=subprocess.STDOUT)
    try:
        interrupt(tree, slurm, cluster, log)
        assert cluster.wait(600) == 0, log.read_text()
    finally:
        cluster.kill()
    text = log.read_text()

    assert len(re.findall(r"submitted with SLURM jobid \d+", text)) == 6  # data, three trainings, two of them again
    continued = {}
    for run, attempts in (("whole", 1), ("killed", 2), ("told", 2)):
        calls = [line for line in text.splitlines() if line.startswith("sbatch call") and f"rule_train_{run}" in line]
        limits = ["-t 720 --mem 16000", "-t 1440 --mem 32000"][:attempts]
        assert [limit in call for limit, call in zip(limits, calls, strict=True)] == [True] * attempts
        assert all(" --signal=TERM@300 " in call and " --requeue " in call and "--gpus" not in call for call in calls)
        told = (tree / f"results/logs/train/{run}_seed0.log").read_text()
        continued[run] = [int(nimg) for nimg in re.findall(r"continuing at (\d+) images", told)]
    assert continued["whole"] == []
    assert len(continued["killed"]) == len(continued["told"]) == 1
    assert 0 < continued["killed"][0] < TRAINING["total_nimg"]
    assert continued["killed"][0] % 160 == 0  # at a checkpoint on its way
    assert 0 < continued["told"][0] < TRAINING["total_nimg"]  # where it stood: it has no other checkpoints
    assert len({digest(tree / path) for path in results.values()}) == 1


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pods_take_their_files_from_the_volume_and_leave_them_there(tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_kubernetes", reason="needs `pip install -e '.[kubernetes]'`")
    if shutil.which("rsync") is None:
        pytest.skip("no rsync, with which the storage plugin copies")
    tree = study(tmp_path / "tree")
    for command in (["init", "--quiet"], ["add", "--all", "--", ":!*.so"]):  # what the pods get is what git knows
        subprocess.run(["git", *command], cwd=tree, check=True)
    volume = tmp_path / "volume"
    volume.mkdir()
    pods = os.environ | {"PATH": f"{image(tmp_path)}{os.pathsep}{os.environ['PATH']}"}
    cluster = Cluster(tmp_path, pods)
    profile = tree / "profiles" / "kubernetes" / "config.yaml"
    profile.write_text(profile.read_text().replace("/pygan/", f"{volume}/").replace(':/pygan"', f':{volume}"'))
    without_gpus(profile, "told")
    whole, told = (f"results/train/{run}/seed0/snapshots/000001600.safetensors" for run in ("whole", "told"))

    def submit(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "snakemake", *arguments, "--seconds-between-status-checks", "1"]
        result = subprocess.run(
            [*command, "--workflow-profile", "profiles/kubernetes"],
            cwd=tree,
            env=pods | {"KUBECONFIG": str(cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    try:
        code, output = submit(told)
        assert code == 0, output + "".join(cluster.log(name).read_text() for name in cluster.jobs)
        code, output = submit(whole, "--retries", "0")
        (log,) = (volume / "files" / "results" / "logs" / "train").glob("whole_seed0.log")
        assert code == 1 and "gpus: got 1, expected at most 0" in log.read_text(), output
    finally:
        cluster.stop()

    assert (volume / "files" / told).is_file() and not (volume / "files" / whole).exists()
    assert [path.name for path in sorted((volume / "work").iterdir())] == ["prepare_data", "train"]
    data, on_cpu, on_gpu = (job["spec"]["template"]["spec"] for job in cluster.jobs.values())
    for pod in (data, on_cpu, on_gpu):
        assert {"name": "pygan", "mountPath": str(volume)} in pod["containers"][0]["volumeMounts"]
    resources = on_gpu["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert resources["limits"]["memory"] == "16000M"
    for pod in (data, on_cpu):
        assert pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0") == "0"


def image(folder: Path) -> Path:
    """Programs that a pod finds: this Python, and a pip that has nothing to do, as the plugins are there already."""
    programs = folder / "image"
    programs.mkdir()
    for name, line in (("python", f'exec {sys.executable} "$@"'), ("pip", "")):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    return programs
