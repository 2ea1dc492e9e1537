"""A study takes the GPUs that are visible, unless it is told otherwise: plans and runs of the real workflow."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from fake_stages import install
from stand_in_gpus import UUIDS, listing, nvidia_smi

pytest.importorskip("snakemake")
pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="the installed PyTorch is built without CUDA")

ON_A_GPU = {"reference", "probe", "train", "select", "evaluate", "diffusion"}
"""Stages whose jobs take a GPU; `evaluate` has a job without, the anchor of real pictures."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return install(tmp_path / "tree")


def snakemake(study: Path, gpus: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on a machine with some GPUs."""
    machine = nvidia_smi(study.parent, listing(gpus)) | {"XDG_CACHE_HOME": str(study.parent / "cache")}
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/smoke.yaml", *arguments]
    return subprocess.run(command, cwd=study, env=machine | environment, capture_output=True, text=True, check=False)


def granted(study: Path, gpus: int, *arguments: str, **environment: str) -> dict[str, Counter[str]]:
    """Return stage -> GPUs of its jobs, as the commands of a dry run have them."""
    plan = snakemake(study, gpus, "--dry-run", "--printshellcmds", *arguments, **environment)
    assert plan.returncode == 0, plan.stderr
    found: dict[str, Counter[str]] = {}
    for stage, rest in re.findall(r"-m pipeline\.(\w+) --spec (.*)", plan.stdout + plan.stderr):
        asked = re.search(r" --gpus (\d+) ", rest)
        found.setdefault(stage, Counter())[asked[1] if asked else "none"] += 1
    assert {stage for stage, asked in found.items() if set(asked) != {"none"}} == ON_A_GPU - {"diffusion"}
    return found


def test_visible_gpus_are_used_without_a_word(study: Path) -> None:
    found = granted(study, 2)
    assert found["train"] == {"1": 3} and found["select"] == {"1": 3} and found["probe"] == {"1": 1}
    assert found["evaluate"] == {"1": 5, "none": 1}


def test_without_a_gpu_the_cpu_computes(study: Path) -> None:
    assert granted(study, 0)["train"] == {"0": 3}


@pytest.mark.slow
def test_the_user_has_the_last_word(study: Path) -> None:
    assert granted(study, 2, "--resources", "gpu=0")["train"] == {"0": 3}
    assert granted(study, 2, CUDA_VISIBLE_DEVICES="")["train"] == {"0": 3}
    assert granted(study, 0, "--resources", "gpu=1")["train"] == {"1": 3}


@pytest.mark.slow
def test_processes_take_a_gpu_each_or_are_refused(study: Path) -> None:
    path = study / "config" / "smoke.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"processes": 2}))
    found = granted(study, 2)
    assert found["train"] == {"2": 3} and found["select"] == {"1": 3}
    refused = snakemake(study, 1, "--cores", "2")
    assert refused.returncode == 78
    assert "processes: got 2 with 1 GPU, expected at most one process per GPU" in refused.stderr
    assert not (study / "results" / "smoke" / "data").exists()


@pytest.mark.slow
def test_a_cluster_grants_gpus_itself(study: Path) -> None:
    """The machine that submits the jobs need not have any; a number of jobs stands for the cluster."""
    assert granted(study, 0, "--jobs", "10")["train"] == {"1": 3}
    refused = snakemake(study, 0, "--cores", "2", "--jobs", "10")
    assert refused.returncode == 2
    assert "error: got --jobs beside --cores, expected --cores alone on this machine" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "gpus, arguments, sentence",
    [
        (2, (), "Trainings compute on 2 GPUs, 1 GPU each (visible: 2 GPUs)."),
        (0, (), "Trainings compute on the CPU, because no GPU is visible."),
        (2, ("--resources", "gpu=0"), "Trainings compute on the CPU, because the study may use 0 of 2 GPUs."),
    ],
)
def test_the_first_line_says_what_computes(study: Path, gpus: int, arguments: tuple[str, ...], sentence: str) -> None:
    ran = snakemake(study, gpus, "--cores", "2", *arguments)
    assert ran.returncode == 0, ran.stderr
    told = re.findall(r"^\[(.*)\]$", ran.stderr, flags=re.M)
    assert told[0] == sentence and re.match(r"\d+ jobs to do", told[1])


@pytest.mark.slow
def test_trainings_side_by_side_take_different_gpus(study: Path) -> None:
    """Every job of the fake stages notes its GPU and waits for another one to be there."""
    fake = study / "pipeline" / "fake.py"
    fake.write_text(
        fake.read_text().replace(
            "    content = json.dumps(spec, sort_keys=True)",
            "    content = json.dumps(spec, sort_keys=True)\n"
            '    if spec["stage"] == "train":\n'
            "        import os, pathlib, time\n"
            '        folder = pathlib.Path("seen"); folder.mkdir(exist_ok=True)\n'
            '        (folder / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])\n'
            "        time.sleep(3)",
        )
    )
    path = study / "config" / "smoke.yaml"
    values = yaml.safe_load(path.read_text())
    values["runs"] = {"base": values["runs"]["base"]}
    path.write_text(yaml.safe_dump(values | {"seeds": [0, 1], "claims": []}))
    ran = snakemake(study, 2, "--cores", "4", TMPDIR=str(study.parent))
    assert ran.returncode == 0, ran.stderr
    assert sorted(file.read_text() for file in (study / "seen").iterdir()) == list(UUIDS[:2])
