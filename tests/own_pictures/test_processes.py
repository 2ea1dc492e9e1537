"""`--processes`: what is possible, and a training in two processes that is stopped and continued."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import KIMG

from pygan import train_folder
from pygan.checkpoint import read_tensors
from pygan.errors import ConfigError, Stopped, TryAgain
from pygan.folder_settings import Settings, place
from pygan.lock import held

LAST = "snapshots/000000128.safetensors"


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "H200")


def settings(**changes) -> Settings:
    return Settings(pictures=Path("pictures"), out=Path("run"), **changes)


def test_the_device_is_named_with_its_reason(two_gpus):
    assert str(place(settings())).startswith("device: the GPU H200 trains (")
    assert str(place(settings(processes=2))).endswith(", 2 processes with one GPU each")
    assert str(place(settings(device="cpu", processes=2))) == "device: the CPU trains (as asked for), 2 processes"
    assert place(settings(device="cuda:1")).device == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"processes": 3}, r"--processes: got 3, expected at most 2, .* --device cpu trains on the CPU"),
        ({"processes": 2, "device": "cuda:1"}, "--device: got cuda:1, but 2 processes have a GPU each: expected cuda"),
        ({"device": "cuda:2"}, "device: got cuda:2, but PyTorch can use 2 GPUs"),
        ({"device": "tpu"}, "device: got 'tpu', expected cpu, cuda or cuda:N"),
        ({"device": "cpu", "precision": "fp16"}, "--precision: got fp16, expected fp32 or bf16 on the CPU"),
        ({"processes": 2, "batch": 7}, "--batch: got 7, expected a multiple of the 2 processes"),
    ],
)
def test_impossible_combinations_are_refused(two_gpus, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        place(settings(**changes))


def stop_when(condition) -> threading.Thread:
    """Send this process Ctrl-C as soon as a condition holds."""

    def watch() -> None:
        while not condition():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def state(out: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in read_tensors(out / LAST)[0].items() if tensor.is_floating_point()}


@pytest.mark.slow
def test_two_processes_stop_and_continue_as_one_does(pictures, judged, tmp_path, capfd):
    said: list[str] = []
    parts = Settings(pictures=pictures, out=tmp_path / "parts", kimg=KIMG, seed=3, processes=2, mirror=True)
    stopper = stop_when((parts.out / "processes" / "pid").exists)
    with pytest.raises(Stopped, match=r"stopped by a signal at \d+ images, state saved; the same command continues"):
        train_folder.train_folder(parts, said.append)
    stopper.join()
    printed = capfd.readouterr().err
    assert printed.count("stopping: saving the state") == 1 and "Traceback" not in printed
    assert said[0].startswith("device: the CPU trains (") and ", 2 processes\n" in said[0]
    assert "mirror: as asked for" in said[0]
    assert list((parts.out / "state").iterdir()) and not (parts.out / "run.json").exists()

    # Continued with as many, it ends near the result of one process
    train_folder.train_folder(parts, said.append)
    run = json.loads((parts.out / "run.json").read_text())
    assert (run["processes"], run["nimg"], run["settings"]["mirror"]) == (2, 128, True)
    whole = replace(parts, out=tmp_path / "whole", processes=1)
    train_folder.train_folder(whole, said.append)
    two, one = state(parts.out), state(whole.out)
    start = read_tensors(whole.out / "snapshots" / "000000000.safetensors")[0]
    names = [name for name in one if name.startswith("D.0.") and name in start]
    learned = sum((one[name] - start[name]).square().sum() for name in names)
    difference = sum((one[name] - two[name]).square().sum() for name in names)
    assert difference < 0.1 * learned  # batch normalization of G sees the share of its process

    # Another number of processes continues it, and says that the bits may differ
    said.clear()
    train_folder.train_folder(replace(parts, processes=1, kimg=2 * KIMG), said.append)
    assert "--processes was 2 and is 1 now: sums may round differently" in said[0]
    assert json.loads((parts.out / "plan.json").read_text())["settings"]["processes"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "told twice"])
def test_no_process_of_a_training_outlives_the_one_that_started_it(pictures, judged, tmp_path, how):
    out = tmp_path / "run"
    options = ["--kimg", "100", "--processes", "2", "--threads", "1", "--resolution", "16", "--recipe", "small"]
    command = [sys.executable, "-m", "pygan", "train", str(pictures), "-o", str(out), *options]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for((out / "processes" / "pid").exists)
    worker = int((out / "processes" / "pid").read_text())
    assert is_running(worker)
    if how == "killed":
        training.kill()
    else:
        training.terminate()
        time.sleep(0.05)
        training.terminate()
    training.wait(60)
    wait_for(lambda: not is_running(worker) and is_free(out / "processes"))


def wait_for(happened, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_free(folder: Path) -> bool:
    """Whether the first process of a training, which holds the folder, has ended, too."""
    try:
        with held(folder):
            return True
    except TryAgain:
        return False


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
