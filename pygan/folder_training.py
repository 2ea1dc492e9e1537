"""The training part of `pygan train`: the stages of a plan, each trained in this process or in several.

Stages before the last one lie in `stages/<name>/` of the run's folder, the last one in that folder itself. Several
processes are started by torchrun, as the workflow starts those of a study; `python -m pygan.folder_training` is what
each of them runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from pygan import errors
from pygan.checkpoint import read_tensors, write_json
from pygan.data.manifest import open_split, read_manifest
from pygan.errors import PyganError, Stopped, TryAgain
from pygan.features.frozen import as_chosen
from pygan.folder_plan import Say, is_trained
from pygan.folder_settings import Place
from pygan.lock import held
from pygan.spec import parse
from pygan.training.assemble import assemble
from pygan.training.distributed import Ranks, end_with_parent, join
from pygan.training.gan import train
from pygan.training.init_from import transfer
from pygan.training.material import Batch
from pygan.training.runstate import StopFlag
from pygan.training.spec import TrainingSpec
from pygan.wording import duration


@dataclass(frozen=True)
class Stage:
    """A training of a plan."""

    name: str
    folder: Path
    """Gets `state/`, `snapshots/`, `stats.jsonl`, `trained.json` and, with pretrained networks, `probe.json`."""
    config: dict[str, Any]
    before: "Stage | None"
    """The stage whose selected snapshot this one starts from; None: it starts from the initialization."""

    @property
    def networks(self) -> int:
        """Pretrained networks beside the discriminator."""
        return sum(player.get("count", 0) for player in self.config["discriminators"])

    @property
    def is_trained(self) -> bool:
        return is_trained(self.folder, self.config)

    @property
    def snapshots(self) -> list[Path]:
        """Snapshots that were trained, the oldest first; that of the start is none of them."""
        counts = [nimg for nimg in self.config["training"]["snapshots"] if nimg]
        return [self.folder / "snapshots" / f"{nimg:09d}.safetensors" for nimg in counts]

    @property
    def selected(self) -> Path:
        """The snapshot that `selected.json` names."""
        return self.folder / "snapshots" / json.loads((self.folder / "selected.json").read_text())["snapshot"]

    @property
    def frozen(self) -> list[dict[str, Any]]:
        """The pretrained networks as the probe chose them."""
        return json.loads((self.folder / "probe.json").read_text())["frozen"] if self.networks else []


def stages(out: Path, plan: dict[str, Any]) -> list[Stage]:
    """Return the stages of a plan in their order; all but vision-aided recipes have one."""
    found: list[Stage] = []
    for item in plan.get("stages", []):
        found.append(Stage(item["name"], out / "stages" / item["name"], item["config"], found[-1] if found else None))
    return [*found, Stage("last", out, plan["config"], found[-1] if found else None)]


def train_stage(out: Path, plan: dict[str, Any], stage: Stage, where: Place, threads: int | None, say: Say) -> None:
    """Train a stage, from its newest checkpoint where there is one; `trained.json` tells that it is done.

    Args:
        threads: of each process; None: as many as PyTorch takes.

    Raises:
        Stopped: a signal asked to stop; the state was saved.
        TryAgain: the processes of the training ended without an answer.
        PyganError: as `pygan.training.gan.train`.
    """
    if stage.is_trained:
        return
    stage.folder.mkdir(parents=True, exist_ok=True)
    say(f"pictures so far: {stage.folder / 'snapshots' / '*.png'}")
    if where.processes == 1:
        together = stage.folder / "processes"  # of a training in several processes, which may not have ended yet
        with _signals_restored(), held(together) if together.exists() else nullcontext():
            _train(out, plan, stage, Ranks(0, 1, where.device), say)
            asked = _stop_was_asked()
    else:
        asked = _train_together(out, stage, where, threads)
    if asked:
        raise Stopped(f"{stage.folder}: trained to its end, then stopped by a signal; the same command continues")


def _train(out: Path, plan: dict[str, Any], stage: Stage, ranks: Ranks, say: Say, *, pid: Path | None = None) -> None:
    """Train a stage as one of its processes.

    Args:
        pid: gets the number of this process when signals are answered; None: nobody asks for it.
    """
    training = parse(TrainingSpec, stage.config["training"], "training")
    manifest = out / "data" / "manifest.json"
    run, indices = assemble(
        stage.config,
        store=open_split(manifest, "train"),
        held_out=open_split(manifest, "validation"),
        class_names=read_manifest(manifest)["class_names"],
        frozen=tuple(as_chosen(item, stage.config["seed"]) for item in stage.frozen),
        init=None if stage.before is None else read_tensors(stage.before.selected)[0],
        reset=("optimizers", "augment"),
        device=ranks.device,
    )
    begun = any(".tmp-" not in path.name for path in (stage.folder / "state").glob("*"))
    if plan.get("init_from") and stage.before is None and not begun:
        say(transfer(run, Path(plan["init_from"])))
    run.batch = _timed(run.batch, training.total_nimg, say)
    if pid is not None:
        run.batch = _announced(run.batch, pid)
    result = train(run, training, state_dir=stage.folder / "state", out_dir=stage.folder, ranks=ranks)
    if ranks.is_first:
        write_json(stage.folder / "trained.json", {**result, "n_images": len(indices)})


def _stop_was_asked() -> bool:
    """Return whether what answers signals was asked to stop; a training that was in its last step ends all the same."""
    flag = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return isinstance(flag, StopFlag) and flag.set


@contextmanager
def _signals_restored() -> Iterator[None]:
    """The loop answers signals itself; what comes after it is to end at the first Ctrl-C again."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _timed(batch: Batch, total: int, say: Say, *, steps: int = 16, seconds: float = 3.0) -> Batch:
    """Return `batch` that says, after the first steps, how long the training will take.

    Where there is no terminal for the progress bar, it goes on to say so at every tenth.

    Args:
        steps: measured at least, so that terms which come every few steps have their share.
        seconds: measured at least.
    """
    start: tuple[float, int] | None = None
    calls, next_nimg = 0, 0

    def timed(index: Tensor) -> tuple[Tensor, Tensor | None]:
        nonlocal start, calls, next_nimg
        now, nimg = time.monotonic(), int(index[0])
        calls += 1
        if calls == 3:  # the first call is for the monitor, the first step warms up
            start = (now, nimg)
        elif start is not None and nimg >= next_nimg and calls >= 3 + steps and now - start[0] >= seconds:
            rate = (nimg - start[1]) / (now - start[0])
            say(f"{nimg} of {total} images, {rate:.0f} a second: about {duration((total - nimg) / rate)} to go")
            next_nimg = total if sys.stderr.isatty() else nimg + total // 10
        return batch(index)

    return timed


# Several processes


def _train_together(out: Path, stage: Stage, where: Place, threads: int | None) -> bool:
    """Train a stage in several processes and wait for them; return whether a signal asked to stop in the last step."""
    folder = stage.folder / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    for left in (*folder.glob("failure-*.json"), folder / "pid"):
        left.unlink(missing_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(where.processes)]
    share = threads or max((os.cpu_count() or 1) // where.processes, 1)
    command = [sys.executable, *launcher, "-m", "pygan.folder_training", str(out), stage.name, where.device.type]
    # a session of their own: Ctrl-C of the terminal reaches this process alone, which passes it on
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(share)},
        start_new_session=True,
        preexec_fn=end_with_parent,  # torchrun passes it on to the processes that it started
    )
    with _signals_restored():
        _wait(process, folder / "pid")
        asked = _stop_was_asked()
    failures = [json.loads(file.read_text()) for file in sorted(folder.glob("failure-*.json"))]
    if failures:
        raise getattr(errors, failures[0]["error"])(failures[0]["message"])
    if process.returncode or not stage.is_trained:
        raise TryAgain(
            f"the processes of the training ended with exit code {process.returncode}; the same command continues {out}"
        )
    return asked


class _StopAll(StopFlag):
    """Passes the first signal on to the training, and ends all its processes at the second."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        super().__init__()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.set:
            os.killpg(self._process.pid, signal.SIGKILL)
        super()._on_signal(number, frame)


def _wait(process: subprocess.Popen, pid: Path) -> None:
    """Wait for the launcher of a training, and pass a wish to stop on to one of its processes."""
    stop, passed_on = _StopAll(process), False
    while process.poll() is None:
        if stop.set and not passed_on and pid.exists():
            with suppress(ProcessLookupError):  # it ends at this moment
                os.kill(int(pid.read_text()), signal.SIGTERM)
            passed_on = True
        time.sleep(0.1)


def _announced(batch: Batch, pid: Path) -> Batch:
    """Return `batch` that writes the number of this process at its second call, when the loop answers signals."""
    calls = 0

    def announcing(index: Tensor) -> tuple[Tensor, Tensor | None]:
        nonlocal calls
        calls += 1
        if calls == 2:
            write_json(pid, os.getpid())
        return batch(index)

    return announcing


def main(arguments: list[str]) -> None:
    """Train a stage as one of torchrun's processes; the arguments are folder of the run, name and kind of device.

    An error goes to the process that started torchrun in a file; one that all processes share, because a signal asked
    for it, is no failure of this one.
    """
    out, name, device = Path(arguments[0]), arguments[1], arguments[2]
    plan = json.loads((out / "plan.json").read_text())
    (stage,) = (stage for stage in stages(out, plan) if stage.name == name)
    ranks = join(device)
    folder = stage.folder / "processes"
    try:
        if ranks.is_first:
            with held(folder):
                _train(out, plan, stage, ranks, lambda line: print(line, file=sys.stderr, flush=True))
        else:
            last = folder / "pid" if ranks.rank == ranks.size - 1 else None
            _train(out, plan, stage, ranks, lambda line: None, pid=last)
    except PyganError as error:
        write_json(folder / f"failure-{ranks.rank:04d}.json", {"error": type(error).__name__, "message": str(error)})
        if not isinstance(error, Stopped):
            sys.exit(error.exit_code)


if __name__ == "__main__":
    from pygan.allocator import set_allocator

    set_allocator()
    main(sys.argv[1:])
