"""The runner of the stages: fingerprints, locks, publishing, exit codes."""

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, provenance
from pygan.errors import DataError, NumericalError, Stopped, TryAgain

ROOT = provenance.ROOT
SPEC = {"stage": "report", "config": {"a": 1}}


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a stage function as the program would; returns exit code and output."""

    def runner(main: Callable[..., None], *arguments: str, spec: Any = SPEC, out: str = "results") -> tuple[int, str]:
        text = spec if isinstance(spec, str) else json.dumps(spec)
        fixed = ["--spec", text, "--out", str(tmp_path / out), "--work", str(tmp_path / "work")]
        try:
            cli.run_stage(main, [*fixed, *arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return runner


def write_one(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    (out / "deep").mkdir(exist_ok=True)
    (out / "deep" / "file.txt").write_text(json.dumps(sorted(inputs)))


def never(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    raise AssertionError("computed again")


def work_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "work" / "report").iterdir()
    return folder


def test_files_are_published_and_a_finished_job_is_not_computed_again(run, tmp_path: Path) -> None:
    assert run(write_one)[0] == 0
    published = tmp_path / "results" / "deep" / "file.txt"
    assert published.read_text() == "[]"
    published.unlink()
    code, output = run(never)
    assert code == 0
    assert "nothing to compute" in output
    assert published.read_text() == "[]"
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_inputs_are_given_by_name_and_an_empty_name_is_absent(run, tmp_path: Path) -> None:
    seen = {}
    for name in ("a", "b", "c d"):
        (tmp_path / name).write_text(name)

    def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        seen.update(inputs)
        write_one(spec, inputs=inputs, out=out)

    a, b, c = (str(tmp_path / name) for name in ("a", "b", "c d"))
    assert run(main, "--input", f"many={a}", b, "--input", "none=", "--input", f"many={c}")[0] == 0
    assert seen == {"many": [Path(a), Path(b), Path(c)]}


def test_the_fingerprint_follows_spec_contents_and_their_order(tmp_path: Path) -> None:
    a, b, store = tmp_path / "a", tmp_path / "b", tmp_path / "x.lmdb"
    for path in (a, b, store):
        path.write_text(path.name)
    base = cli.fingerprint(SPEC, {"x": [a, b]})
    assert base == cli.fingerprint(dict(reversed(SPEC.items())), {"x": [a, b]})
    assert base != cli.fingerprint(SPEC, {"x": [b, a]})
    assert base != cli.fingerprint(SPEC, {"y": [a, b]})
    assert base != cli.fingerprint(SPEC | {"threads": 2}, {"x": [a, b]})
    assert base != cli.fingerprint(SPEC, {"x": [a, b]}, on_cpu=True)
    os.utime(a, (0, 0))
    assert base == cli.fingerprint(SPEC, {"x": [a, b]})
    a.write_text("other")
    assert base != cli.fingerprint(SPEC, {"x": [a, b]})
    folder = cli.fingerprint(SPEC, {"x": [tmp_path]})
    b.write_text("other")
    assert folder != cli.fingerprint(SPEC, {"x": [tmp_path]})
    with_store = cli.fingerprint(SPEC, {"x": [store]})
    store.write_text("y.lmdb")  # same size: its content stands in the manifest
    assert with_store == cli.fingerprint(SPEC, {"x": [store]})


def test_a_stop_that_was_asked_for_is_no_error(run) -> None:
    def stopped(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        raise Stopped("stopped by a signal, state saved")

    code, output = run(stopped)
    assert code == 75 and "stopped by a signal" in output and "error" not in output


def test_the_device_enters_the_fingerprint(run, tmp_path: Path, monkeypatch) -> None:
    """The same job on another kind of device is another one, and the stage finds its device in the spec."""
    seen = []

    def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        seen.append(spec["device"])
        write_one(spec, inputs=inputs, out=out)

    assert run(main)[0] == 0
    monkeypatch.setattr(cli, "take", lambda gpus, processes: {"type": "cuda", "why": "1 GPU granted"})
    assert run(main)[0] == 0
    assert [device["type"] for device in seen] == ["cpu", "cuda"]
    assert len(list((tmp_path / "work" / "report").iterdir())) == 2


def test_gpus_and_processes_have_to_fit(run) -> None:
    code, output = run(never, "--gpus", "1", "--processes", "2")
    assert code == 78 and "--gpus: got 1 for 2 processes, expected 2, one for each, or 0" in output


def test_damaged_finished_files_are_computed_again(run, tmp_path: Path) -> None:
    run(write_one)
    file = work_folder(tmp_path) / "out" / "deep" / "file.txt"
    file.write_text("{}")
    code, output = run(write_one)
    assert code == 0
    assert "damaged" in output
    assert (tmp_path / "results" / "deep" / "file.txt").read_text() == "[]"


def test_a_failed_job_publishes_nothing_and_keeps_its_state(run, tmp_path: Path) -> None:
    def half(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        (out / "half.txt").write_text("half")
        (out / "other.txt.tmp-1").write_text("torn")
        (out.parent / "state").mkdir()
        raise NumericalError("loss/G is nan at 3200 images")

    code, output = run(half)
    assert code == 70
    assert output.count("\n") == 2
    assert output.endswith("error: loss/G is nan at 3200 images\n")
    assert list((tmp_path / "results").iterdir()) == []

    def resume(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        assert [path.name for path in out.iterdir()] == ["half.txt"]
        (out.parent / "state").rmdir()
        raise DataError("again")

    assert run(resume)[0] == 65

    def from_scratch(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        assert list(out.iterdir()) == []
        write_one(spec, inputs=inputs, out=out)

    assert run(from_scratch)[0] == 0


def test_a_held_job_names_its_holder(run, tmp_path: Path) -> None:
    run(write_one)
    lock = work_folder(tmp_path) / "lock"
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, output = run(never)
    assert code == TryAgain.exit_code
    assert f"held by pid {os.getpid()} on host" in output


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("{", 78, "--spec: not JSON"),
        ("[1]", 78, "--spec: expected a JSON object"),
        (SPEC | {"code": "0123456789abcdef"}, 75, "its code changed after this job was planned"),
    ],
)
def test_specs_that_cannot_be_trusted(run, spec: Any, code: int, words: str) -> None:
    got, output = run(never, spec=spec)
    assert got == code
    assert words in output


def test_usage_and_missing_inputs(run) -> None:
    assert run(never, "--input", "path-without-name")[0] == 2
    code, output = run(never, "--input", "features=/no/such/file")
    assert code == 66
    assert "/no/such/file" in output


def test_a_full_disk_is_73_and_publishes_no_half_file(run, tmp_path: Path) -> None:
    def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out / "big"))

    code, output = run(main)
    assert code == 73
    assert "No space left on device" in output and "big" in output


def test_a_folder_that_cannot_be_written_is_73_before_any_computation(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = tmp_path / "closed"
    blocked.mkdir(mode=0o500)
    if os.access(blocked, os.W_OK):
        pytest.skip("this user may write anywhere")
    code, output = run(never, out="closed/results")
    assert code == 73
    assert "closed" in output


def test_a_file_that_outgrows_the_limit_leaves_no_temporary(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk while publishing."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5000)
    code = (
        "import resource, signal, sys; from pathlib import Path; from pipeline import cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))\n"
        f"cli._write(Path({str(tmp_path / 'final')!r}), open({str(source)!r}, 'rb'))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "File too large" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_bugs_show_their_traceback(run) -> None:
    def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
        raise KeyError("oops")

    with pytest.raises(KeyError):
        run(main)


def test_a_stage_without_files_is_an_error(run) -> None:
    code, output = run(lambda spec, *, inputs, out: None)
    assert code == 65
    assert "wrote no file" in output


def test_the_allocator_is_set_before_torch_is_imported() -> None:
    code = "import sys, os; import pipeline.cli; print('torch' in sys.modules, os.environ['THP_MEM_ALLOC_ENABLE'])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "1"]


def test_a_stage_says_what_the_library_tells_and_works_where_it_is_told(tmp_path: Path) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(
        "import logging, sys\n"
        "from pipeline.cli import run_stage\n"
        "def main(spec, *, inputs, out):\n"
        "    logging.getLogger('pygan.training').info('continuing at %d images', 160)\n"
        "    logging.getLogger('another').info('chatter')\n"
        "    (out / 'file').touch()\n"
        "run_stage(main)\n"
    )
    command = [sys.executable, str(stage), "--spec", json.dumps(SPEC), "--out", "results"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYGAN_WORK": str(tmp_path / "elsewhere")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == "continuing at 160 images\n"
    assert len(list((tmp_path / "elsewhere" / "report").iterdir())) == 1
    assert not (tmp_path / "work").exists()
