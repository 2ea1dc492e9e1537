"""An interrupted training ends with the same bits as one that was never interrupted."""

import hashlib
import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny
from tiny import SPEC, tiny_run

from pygan.checkpoint import read_tensors
from pygan.errors import TryAgain
from pygan.training.gan import train

LAST = f"{SPEC.total_nimg:09d}.safetensors"


def program(out: Path, *arguments: object) -> int:
    """Run `tiny.py` in a child process; return its exit code, negative for the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = tiny.main([str(out), *map(str, arguments)])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code


def tensors(out: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    return read_tensors(out / "out" / "snapshots" / name)[0]


def nimgs(out: Path) -> list[int]:
    return [json.loads(line)["nimg"] for line in (out / "out" / "stats.jsonl").read_text().splitlines()]


def assert_same(a: Path, b: Path) -> None:
    for name in ("000000040.safetensors", LAST):
        first, second = tensors(a, name), tensors(b, name)
        assert first.keys() == second.keys()
        different = [key for key in first if not torch.equal(first[key], second[key])]
        assert not different
    assert nimgs(a) == nimgs(b) == list(range(8, 81, 8))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert program(out) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_killed_at_a_random_step(trial, tmp_path, uninterrupted):
    die_at = 4 * random.Random(trial).randrange(SPEC.total_nimg // 4)
    assert program(tmp_path, "--die-at", die_at) == -signal.SIGKILL
    assert program(tmp_path) == 0
    assert_same(tmp_path, uninterrupted)


def test_killed_inside_a_checkpoint_write(tmp_path, uninterrupted):
    # the snapshot at 0 syncs 2 + 2 times (file and folder, tensors and grid), then come the first checkpoint's files
    for sync in (6, 7):
        assert program(tmp_path, "--die-in-sync", sync) == -signal.SIGKILL
        assert list((tmp_path / "state").glob("*.tmp-*"))
    assert program(tmp_path) == 0
    assert not list((tmp_path / "state").glob("*.tmp-*"))
    assert_same(tmp_path, uninterrupted)


def test_killed_twice_and_finished(tmp_path, uninterrupted):
    assert program(tmp_path, "--die-at", 44) == -signal.SIGKILL
    assert program(tmp_path, "--die-at", 72) == -signal.SIGKILL
    assert program(tmp_path) == 0
    assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize("kind", ["ada", "apa"])
def test_an_adaptive_augmentation_continues_where_it_stood(tmp_path, kind):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert program(whole, "--augment", kind) == 0
    assert program(killed, "--augment", kind, "--die-at", 44) == -signal.SIGKILL
    stood = read_tensors(killed / "state" / "000000000032" / "tensors.safetensors")[0]
    assert stood["D.0.augment.sign_count"] > 0  # between two adjustments
    assert program(killed, "--augment", kind) == 0
    assert_same(whole, killed)
    assert tensors(whole)["D.0.augment.p"] != stood["D.0.augment.p"]


def test_a_signal_saves_the_state_and_asks_to_try_again(tmp_path, uninterrupted):
    run = tiny_run()
    batch = run.batch

    def signalling(index):
        if index[0] == 20:
            signal.raise_signal(signal.SIGTERM)
        return batch(index)

    run.batch = signalling
    (tmp_path / "out").mkdir()
    with pytest.raises(TryAgain, match="stopped by a signal at 24 images"):
        train(run, SPEC, state_dir=tmp_path / "state", out_dir=tmp_path / "out")
    assert (tmp_path / "state" / "000000000024").exists()
    assert program(tmp_path) == 0
    assert_same(tmp_path, uninterrupted)


def test_a_flipped_byte_falls_back_to_the_older_checkpoint(tmp_path, uninterrupted, caplog):
    assert program(tmp_path, "--die-at", 60) == -signal.SIGKILL
    newest = sorted((tmp_path / "state").iterdir())[-1] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert program(tmp_path) == 0
    assert_same(tmp_path, uninterrupted)


def test_digest_of_the_same_run_is_the_same(tmp_path, uninterrupted):
    assert program(tmp_path) == 0
    digest = [
        hashlib.sha256((p / "out" / "snapshots" / LAST).read_bytes()).hexdigest() for p in (tmp_path, uninterrupted)
    ]
    assert digest[0] == digest[1]
