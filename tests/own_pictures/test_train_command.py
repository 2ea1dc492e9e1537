"""`pygan train` and `pygan advise` on the command line: exit codes and the sentence of every refusal."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import KIMG, interrupt_at, pixels
from typer.testing import CliRunner

from pygan import assets, folder_pictures, folder_training, speeds, train_folder
from pygan.cli import app
from pygan.errors import MissingInput
from pygan.folder_plan import planned
from pygan.lock import held
from pygan.recipes import RECIPES


def invoke(*arguments: object) -> tuple[int, str]:
    """Return exit code and stderr, on one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.stderr.split())


@pytest.fixture
def run(pictures, tmp_path):
    return lambda *options: invoke("train", pictures, "--out", tmp_path / "run", "--kimg", KIMG, *options)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--recipe", "secret"], 2, f"recipe: got 'secret', expected one of {', '.join(RECIPES)}"),
        (["--resolution", "48"], 2, "resolution: got 48, expected a power of two, 16 at least"),
        (["--resolution", "32"], 65, "40 pictures can't be used"),
        (["--fit", "squeeze"], 2, "squeeze"),
        (["--kimg", "0"], 2, "kimg"),
        (["--batch", "1"], 2, "batch"),
        (["--processes", "0"], 2, "processes"),
        (["--precision", "int8"], 2, "precision"),
        (["--device", "tpu"], 78, "device: got 'tpu', expected cpu, cuda or cuda:N"),
        (["--precision", "fp16", "--device", "cpu"], 78, "--precision: got fp16, expected fp32 or bf16 on the CPU"),
        (["--batch", "9", "--processes", "2"], 78, "--batch: got 9, expected a multiple of the 2 processes"),
        (
            ["--processes", "3", "--device", "cpu"],
            78,
            "--processes: got 3, expected a divisor of the recipe's batch of 32",
        ),
        (["--recipe", "paper256", "--batch", "20"], 78, "--batch: got 20, expected a multiple of 8: the discriminator"),
        (["--init-from", "nowhere.safetensors"], 66, "nowhere.safetensors: no such file"),
    ],
)
def test_what_is_refused_before_it_trains(run, judged, tmp_path, options, code, sentence):
    got, words = run(*options)
    assert (got, sentence in words) == (code, True), words
    assert not (tmp_path / "run" / "plan.json").exists()


def test_a_device_that_is_not_there(run, judged, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, words = run("--device", "cuda")
    assert code == 78 and "device: got cuda, but PyTorch can use 0 GPUs" in words


def test_pictures_that_cannot_be_used(judged, tmp_path, pictures):
    out = tmp_path / "run"
    assert invoke("train", tmp_path / "none", "--out", out) == (
        66,
        f"error: {tmp_path}/none: there is no such folder or zip (source.path)",
    )
    few = tmp_path / "few"
    few.mkdir()
    for i in range(5):
        Image.fromarray(pixels(i, 20, 20)).save(few / f"{i}.png")
    code, words = invoke("train", few, "--out", out)
    assert code == 65 and "expected at least 2 of each: add" in words and words.endswith("or more")
    shutil.copy(few / "0.png", few / "broken.png")
    (few / "broken.png").write_bytes(b"x")
    code, words = invoke("train", few, "--out", out)
    assert code == 65 and "1 picture can't be used, the first is broken.png (not a picture of a known format)" in words
    code, words = invoke("train", pictures, "--out", pictures / "runs")
    assert code == 78 and "lies inside of" in words


def test_a_network_that_is_not_installed(run, monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "_locate", lambda entry: None)
    code, words = run()
    assert code == 66 and "mobilenet_v2" in words and "pygan assets install" in words
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_held_interrupted_stopped_finished_and_changed(run, judged, tmp_path, monkeypatch):
    with held(tmp_path / "run"):
        code, words = run()
        assert code == 75 and f"error: {tmp_path}/run: held by pid {os.getpid()}" in words

    def ctrl_c(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder_pictures, "prepare", ctrl_c)
        assert run() == (75, f"interrupted; the same command continues {tmp_path}/run")
    with monkeypatch.context() as patch:
        interrupt_at(32, patch)
        code, words = run()
        assert code == 75 and "error" not in words
        assert words.endswith("stopped by a signal at 64 images, state saved; the same command continues")
    assert run()[0] == 0
    for options, sentence in (
        (["--kimg", "0.032"], "--kimg: got 0.032, but"),
        (["--mirror"], "--mirror: got True, but"),
        (["--batch", "64"], "--batch: got 64, but"),
        (["--precision", "bf16"], "--precision: got bf16, but"),
        (["--seed", "1"], "--seed: got 1, but"),
    ):
        code, words = run(*options)
        assert code == 78 and sentence in words, words
    shutil.rmtree(tmp_path / "run" / "state")
    code, words = run("--kimg", 2 * KIMG)
    assert code == 66 and "state: the checkpoints are gone" in words


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"settings": {}}'])
def test_a_damaged_plan_is_named(run, judged, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text(content)
    code, output = run("-o", tmp_path / "run")
    assert code == 65 and f"{tmp_path / 'run' / 'plan.json'}: " in output


def test_an_endless_training_is_refused(run, judged, tmp_path):
    code, output = run("-o", tmp_path / "run", "--kimg", "1e300")
    assert code == 2 and "kimg: got 1e+300, expected a number above 0, at most 10,000,000" in output


def test_processes_that_ended_without_an_answer(run, judged, monkeypatch, tmp_path):
    monkeypatch.setattr(folder_training.sys, "executable", shutil.which("false"))
    code, words = run("--processes", "2", "--device", "cpu")
    assert code == 75 and "the processes of the training ended with exit code 1; the same command continues" in words


def test_a_stop_in_the_last_step_of_several_processes(run, judged, monkeypatch, tmp_path):
    """The processes end as trained, and measuring waits for the same command."""
    processes = tmp_path / "processes"
    trained = f"""echo '{{"nimg": 128}}' > {tmp_path}/run/trained.json"""
    processes.write_text(f"#!/bin/sh\n{trained}\nsleep 0.5\nkill -INT $PPID\nsleep 0.5\n")
    processes.chmod(0o755)
    monkeypatch.setattr(folder_training.sys, "executable", str(processes))
    code, words = run("--processes", "2", "--device", "cpu")
    assert code == 75 and "trained to its end, then stopped by a signal" in words and "error" not in words
    assert not (tmp_path / "run" / "run.json").exists()


def test_what_was_asked_for_is_in_the_plan(run, judged, tmp_path, monkeypatch):
    monkeypatch.setattr(train_folder, "train_stage", lambda *args: (_ for _ in ()).throw(MissingInput("enough")))
    code, _ = run("--mirror", "--batch", "16", "--precision", "bf16", "--device", "cpu")
    plan = folder_training.json.loads((tmp_path / "run" / "plan.json").read_text())
    assert code == 66
    assert {plan["settings"][name] for name in ("mirror", "batch", "precision", "device")} == {True, 16, "bf16", "cpu"}
    assert plan["config"]["mirror"] is True
    assert (plan["config"]["training"]["batch"], plan["config"]["training"]["precision"]) == (16, "bf16")
    assert plan["config"]["training"]["total_nimg"] == 128
    for reason in ("training.batch: 16 as asked for", "training.precision: bf16 as asked for", "mirror: as asked for"):
        assert reason in plan["text"]


def test_the_help_lists_the_recipes():
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert all(name in result.output for name in RECIPES)


@pytest.mark.parametrize("module", ["numpy", "torch", "pygan.training.gan"])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(module, pictures, tmp_path):
    """It comes while a module is imported, some of which would go on half imported."""
    program = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from pygan.cli import app
app(["train", {str(pictures)!r}, "--out", {str(tmp_path / "run")!r}])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


# advise


@pytest.fixture
def advised(monkeypatch):
    """Return what `advise` says of a folder; 10 pictures a second are measured."""
    monkeypatch.setattr(speeds, "images_per_second", lambda run, resolution: 10.0)

    def said(path: Path) -> str:
        result = CliRunner().invoke(app, ["advise", str(path)])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return said


@pytest.mark.parametrize("kind", ["plain", "small", "long", "broken"])
def test_the_recommended_command_is_accepted(kind, judged, advised, tmp_path, monkeypatch):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for i in range(40):
        height, width = {"small": (20 if i else 5, 20), "long": (20, 50)}.get(kind, (20, 20))
        Image.fromarray(pixels(i, height, width)).save(folder / f"{i}.png")
    if kind == "broken":
        (folder / "broken.png").write_bytes(b"x")
    said = advised(folder)
    assert "\ntime\n  about 4.0 hours on this machine, where 10 pictures a second were measured" in said
    command = shlex.split(said.strip().splitlines()[-1].strip())
    assert command[:2] == ["pygan", "train"]
    plans = []

    def only_plan(settings, say):
        where = train_folder.place(settings)
        plans.append(planned(settings, where, say))

    monkeypatch.setattr(train_folder, "train_folder", only_plan)
    code, words = invoke(*command[1:], "--out", tmp_path / "run")
    assert code == 0, words
    side = plans[0]["config"]["base"], said.partition("\nresolution\n  ")[2].partition(" pixels")[0]
    assert f"resolution: {side[1]} pixels" in plans[0]["text"]
    assert f"recipe: {plans[0]['recipe']}\n" in said


def test_too_few_pictures_are_said_with_the_number_that_is_missing(judged, advised, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(pixels(i, 20, 20)).save(folder / f"{i}.png")
    said = advised(folder)
    _, words = invoke("train", folder, "--out", tmp_path / "run")
    sentence = words.partition("few: ")[2]
    assert "add " in sentence and sentence in " ".join(said.split())
    assert "\ncommand\n" not in said


def test_files_that_are_left_out_are_named(advised, tmp_path, pictures, monkeypatch):
    folder = tmp_path / "photos"
    shutil.copytree(pictures, folder)
    (folder / "class 0" / "a.NEF").write_bytes(b"x")
    said = advised(folder)
    assert "1 .nef file is left out: raw data of a camera, convert to JPEG or PNG" in said
    assert "config/" not in said
