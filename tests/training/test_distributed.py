"""Two processes with half of every batch each train as one with all of it does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from pygan.checkpoint import read_tensors
from pygan.errors import ConfigError
from pygan.training.distributed import Ranks

PROGRAM = Path(__file__).with_name("two_processes.py")
CPU = torch.device("cpu")


def trained(out: Path, nimg: int, processes: int) -> dict[str, torch.Tensor]:
    """Train in that many processes and return the last snapshot."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(PROGRAM), str(out), str(nimg)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    return read_tensors(out / "out" / "snapshots" / f"{nimg:09d}.safetensors")[0]


def assert_close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> None:
    """What the networks learned since `start` differs by the rounding of sums: by less than a thousandth."""
    assert one.keys() == two.keys()
    for network in ("G.", "D.", "G_ema."):
        names = [name for name in one if name.startswith(network)]
        learned = sum((one[name] - start[name]).square().sum() for name in names).sqrt()
        difference = sum((one[name] - two[name]).square().sum() for name in names).sqrt()
        assert difference <= 1e-3 * learned


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(runs):
    one, two = trained(runs / "one", 32, 1), trained(runs / "two", 32, 2)
    start = read_tensors(sorted((runs / "one" / "state").iterdir())[0] / "tensors.safetensors")[0]
    assert_close(one, two, start)
    assert one["D.0.augment.p"] == two["D.0.augment.p"] != torch.tensor(0.3)
    lines = [(runs / name / "out" / "stats.jsonl").read_text().splitlines() for name in ("one", "two")]
    for a, b in zip(*(map(json.loads, each) for each in lines), strict=True):
        assert a["loss/D"] == pytest.approx(b["loss/D"], rel=1e-3)
        assert a["loss/D/R1"] == pytest.approx(b["loss/D/R1"], rel=1e-3)


@pytest.mark.slow
def test_a_run_continues_with_another_number_of_processes(runs, tmp_path):
    if not (runs / "one").exists():
        trained(runs / "one", 32, 1)
    start = read_tensors(sorted((runs / "one" / "state").iterdir())[-1] / "tensors.safetensors")[0]
    for name in ("alone", "changed"):
        shutil.copytree(runs / "one", tmp_path / name)
    assert_close(trained(tmp_path / "alone", 48, 1), trained(tmp_path / "changed", 48, 2), start)


def test_shares_cover_the_batch_and_must_be_equal():
    index = torch.arange(100, 108)
    shares = [Ranks(rank, 2, CPU).share(index) for rank in range(2)]
    assert torch.equal(torch.cat(shares), index)
    Ranks(0, 2, CPU).check("training.batch", 8)
    with pytest.raises(ConfigError, match=r"training.batch: got 7, expected a multiple of the 2 processes"):
        Ranks(0, 2, CPU).check("training.batch", 7)


def test_alone_nothing_is_averaged():
    ranks = Ranks(0, 1, CPU)
    value = torch.tensor([1.5])
    ranks.mean_([value])
    assert value == 1.5
    assert ranks.mean({"a": 2.0}) == {"a": 2.0}
    assert not ranks.any(False)
    assert ranks.any(True)
