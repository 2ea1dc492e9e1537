"""Programs side by side take different GPUs, and give them back however they end."""

import os
import subprocess
import sys

import pytest

from pygan import gpu_claims
from pygan.devices import Gpus
from pygan.errors import CannotWrite, ConfigError
from pygan.gpu_claims import claim, take

CLAIM = """
import sys, time
from pathlib import Path
from pygan.devices import Gpus
from pygan.gpu_claims import claim
ids, n, folder = sys.argv[1].split(","), int(sys.argv[2]), Path(sys.argv[3])
print(",".join(claim(n, Gpus(tuple(ids), "as in the test"), folder)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claimant(tmp_path):
    """Start programs that take GPUs and keep them until they end."""
    programs = []

    def start(ids, n):
        program = [sys.executable, "-c", CLAIM, ids, str(n), str(tmp_path)]
        programs.append(subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return programs[-1], programs[-1].stdout.readline().strip()

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def test_each_program_takes_a_gpu_of_its_own_and_gives_it_back(claimant):
    first, gpu = claimant("a,b", 1)
    assert gpu == "a"
    assert claimant("a,b", 1)[1] == "b"
    assert claimant("a,b", 1)[1] == "a", "more programs than GPUs share them in turn"
    assert claimant("a,b", 1)[1] == "b"
    first.kill()
    first.wait()
    assert claimant("a,b", 1)[1] == "a"


def test_a_program_takes_several_different_gpus(claimant):
    claimant("a,b,c", 1)
    assert claimant("a,b,c", 2)[1] == "b,c"
    assert claimant("a,b,c", 2)[1] == "a,b"


def test_what_a_program_starts_keeps_its_gpu(tmp_path, claimant):
    """torchrun takes the place of the process that took the GPU."""
    program = f"{CLAIM.rpartition('sys.stdin')[0]}import os; os.execvp('sleep', ['sleep', '60'])"
    command = [sys.executable, "-c", program, "a,b", "1", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as replaced:
        assert replaced.stdout.readline().strip() == "a"
        assert claimant("a,b", 1)[1] == "b"
        replaced.kill()


def test_more_gpus_than_there_are_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match=r"gpus: got 2, expected at most 1 \(1 GPU\)"):
        claim(2, Gpus(("GPU-a",), "1 GPU"), tmp_path)
    assert claim(1, Gpus(("GPU-a",), "1 GPU"), tmp_path) == ("GPU-a",)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"


def test_a_gpu_is_one_however_it_is_named(tmp_path, claimant, monkeypatch):
    """One study has CUDA_VISIBLE_DEVICES with numbers, another one has none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert claimant("GPU-a,GPU-b", 1)[1] == "GPU-a"
    assert claim(1, Gpus(("0", "1"), "2 GPUs", ("GPU-a", "GPU-b")), tmp_path) == ("1",)


def test_names_of_old_instances_are_files_too(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert claim(1, Gpus(("MIG-GPU-5d5b/7/0",), "1 GPU"), tmp_path) == ("MIG-GPU-5d5b/7/0",)


def test_a_file_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / f"pygan-{os.getuid()}-GPU-a-0.lock").symlink_to("/etc/hostname")
    with pytest.raises(CannotWrite, match=r"GPU-a-0\.lock: this file cannot be opened, which marks a GPU as taken"):
        claim(1, Gpus(("GPU-a",), "1 GPU"), tmp_path)


def test_the_processes_of_a_training_hold_its_gpus(tmp_path, claimant, monkeypatch):
    """torchrun closes what it inherited in its children, and they may outlive it."""
    path = tmp_path / f"pygan-{os.getuid()}-a-0.lock"
    first, gpu = claimant("a,b", 1)
    assert gpu == "a"
    program = "from pygan.gpu_claims import take; import sys; print(take(1), flush=True); sys.stdin.read()"
    environment = os.environ | {"PYGAN_LAUNCHED": "1", "PYGAN_GPU_LOCKS": str(path), "RANK": "0"}
    worker = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert "1 GPU granted" in worker.stdout.readline()
    first.kill()
    first.wait()
    assert claimant("a,b", 1)[1] == "b"
    worker.kill()
    worker.communicate()
    assert claimant("a,b", 1)[1] == "a"


def test_one_process_sees_one_instance(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(gpu_claims, "visible_gpus", lambda: Gpus(("MIG-a", "MIG-b"), "2 GPUs"))
    with pytest.raises(ConfigError, match="processes: got 2 with MIG instances"):
        take(2, 2)
