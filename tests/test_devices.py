"""GPUs are counted as CUDA counts them, without PyTorch; a device is chosen, or refused in a sentence."""

import subprocess
import sys

import pytest
import torch
from stand_in_gpus import UUIDS, listing, nvidia_smi

from pygan import devices
from pygan.devices import choose, study_sentence, visible_gpus
from pygan.errors import ConfigError

MIG = (
    "GPU 0: NVIDIA H200 (UUID: GPU-1111)\n"
    "  MIG 1g.18gb     Device  0: (UUID: MIG-aaaa)\n"
    "  MIG 1g.18gb     Device  1: (UUID: MIG-bbbb)\n"
    "GPU 1: NVIDIA H200 (UUID: GPU-2222)\n"
)


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Let `nvidia-smi` print a text, and PyTorch be built for CUDA."""

    def prints(text, exit_code=0):
        monkeypatch.setenv("PATH", nvidia_smi(tmp_path, text, exit_code)["PATH"])

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: True)
    return prints


def test_every_listed_gpu_counts(smi):
    smi(listing(2))
    assert visible_gpus().ids == UUIDS[:2]
    assert visible_gpus().why == "2 GPUs"


def test_instances_take_the_place_of_a_divided_gpu(smi):
    smi(MIG)
    assert visible_gpus().ids == ("MIG-aaaa", "MIG-bbbb", "GPU-2222")


@pytest.mark.parametrize(
    "asked, chosen",
    [
        ("1", ["1"]),
        ("2,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),  # CUDA stops at the first entry that names no GPU
        ("0,7", ["0"]),
        ("1,1", []),  # a repetition leaves none
        ("1,0,1", []),
        ("+1", ["+1"]),
        ("1gpu", ["1gpu"]),
        ("\u0661", []),
        ("0,GPU-bbbb", ["0"]),  # the first entry says whether numbers or UUIDs are meant
        ("GPU-aaaa,1", ["GPU-aaaa"]),
        ("GPU-aaaa,GPU-aaaaa", []),
        ("GPU-", []),  # which of them?
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("GPU-ffff", []),
    ],
)
def test_cuda_visible_devices_selects_as_cuda_does(smi, monkeypatch, asked, chosen):
    smi(listing(3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
    assert visible_gpus().ids == tuple(chosen)
    numbers = {"1": 1, "2": 2, "0": 0, "+1": 1, "1gpu": 1, "GPU-bbbb": 1, "GPU-aaaa": 0}
    assert visible_gpus().cards == tuple(UUIDS[numbers[entry]] for entry in chosen)
    assert visible_gpus().why == f"CUDA_VISIBLE_DEVICES={asked} leaves {len(chosen)} of 3 GPUs"


def test_a_driver_that_fails_shows_no_gpu(smi):
    smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", exit_code=9)
    assert visible_gpus().ids == ()
    assert (
        visible_gpus().why
        == "nvidia-smi fails (NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.)"
    )


def test_one_broken_card_does_not_hide_the_others(smi):
    smi(listing(2) + "Unable to determine the device handle for GPU 0000:81:00.0\n", exit_code=255)
    assert visible_gpus().ids == UUIDS[:2]


@pytest.mark.parametrize("content, why", [(b"\x7fELF", "Exec format error"), (b"#!/no/such/program\n", "No such file")])
def test_a_program_that_cannot_run_is_named(tmp_path, smi, content, why):
    smi(listing(1))
    (tmp_path / "nvidia-smi").write_bytes(content)
    assert visible_gpus().ids == () and why in visible_gpus().why


def test_a_driver_that_hangs_is_not_waited_for(tmp_path, smi, monkeypatch):
    smi(listing(1))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 100\n")
    monkeypatch.setattr(devices, "_PATIENCE", 0.2)
    assert visible_gpus() == devices.Gpus((), "nvidia-smi does not answer in 0.2 seconds")


def test_an_empty_list_hides_a_single_gpu(smi, monkeypatch):
    smi(listing(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus().ids == ()


def test_a_machine_without_gpus_shows_none(smi):
    smi("")
    assert visible_gpus() == devices.Gpus((), "no GPU is visible")


@pytest.mark.parametrize("cuda, expected", [("'13.0'", True), ("None", False)])
def test_a_pytorch_without_cuda_has_no_gpu(tmp_path, monkeypatch, cuda, expected):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"hip: Optional[str] = '7.0'\ncuda: Optional[str] = {cuda}\n")
    environment = nvidia_smi(tmp_path, listing(1)) | {"PYTHONPATH": f"{tmp_path}"}
    program = "from pygan.devices import visible_gpus; print(len(visible_gpus().ids))"
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) == expected


def test_counting_imports_no_pytorch():
    program = "import sys; from pygan.devices import visible_gpus; visible_gpus(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False"


def test_the_cpu_can_always_be_chosen():
    assert choose("cpu") == (torch.device("cpu"), "as asked for")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_the_cpu_is_taken():
    device, why = choose()
    assert device == torch.device("cpu")
    assert why == visible_gpus().why
    with pytest.raises(ConfigError, match="got cuda:1, but PyTorch can use 0 GPUs"):
        choose("cuda:1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_pytorch_cannot_use_is_named(smi):
    """The driver is too old for this PyTorch, for example: the CPU trains, and not without a word."""
    smi(listing(2))
    assert choose() == (torch.device("cpu"), "PyTorch cannot use 2 GPUs")


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:x", "mps", ""])
def test_unknown_devices_are_refused(asked):
    with pytest.raises(ConfigError, match="expected cpu, cuda or cuda:N"):
        choose(asked)


def test_the_second_gpu_can_be_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose()[0] == torch.device("cuda", 0)
    assert choose("cuda:1")[0] == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="got cuda:2, but PyTorch can use 2 GPUs"):
        choose("cuda:2")


def test_the_sentence_of_a_study(smi):
    smi(listing(2))
    assert study_sentence(2) == "Trainings compute on 2 GPUs, 1 GPU each (visible: 2 GPUs)."
    assert study_sentence(2, 2) == "Trainings compute on 2 GPUs, 2 GPUs each (visible: 2 GPUs)."
    assert study_sentence(3) == "Up to 3 trainings at once share 2 GPUs."
    assert study_sentence(0, 4) == "Trainings compute on the CPU, because the study may use 0 of 2 GPUs."
    for gpus in (2, 4):
        with pytest.raises(ConfigError, match="processes: got 4 with 2 GPUs, expected at most one process per GPU"):
            study_sentence(gpus, 4)
    smi("")
    assert study_sentence(0) == "Trainings compute on the CPU, because no GPU is visible."
    with pytest.raises(ConfigError, match="gpu: got 1, expected 0, because no GPU is visible"):
        study_sentence(1)
