"""How far a training is, and what it leaves behind: the same for every loop.

Statistics, snapshots and checkpoints, a start from the newest checkpoint, an end by a signal or by a number that is not
finite.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pygan.checkpoint import Checkpoints, write_tensors
from pygan.draws import Draws
from pygan.errors import ConfigError, Stopped
from pygan.sampling import to_uint8
from pygan.sheets import save_grid
from pygan.training.descent import Descent
from pygan.training.diagnosis import check_networks, check_terms, dumped
from pygan.training.distributed import Ranks
from pygan.training.runstate import RunState, StopFlag
from pygan.training.spec import TrainingSpec
from pygan.training.stats import Stats

_log = logging.getLogger(__name__)

GRID = {"seed": 0, "stream": "grid", "pictures": 64}
"""Where the latents of every sample grid come from."""


class Progress:
    """The clock of a training, in pictures, and its records.

    It starts at the newest checkpoint, else at the given state, else at the initialization.

    Args:
        state: what checkpoints carry.
        descents: by phase; their gradient scalers are part of a checkpoint.
        init: state to start from; None: the initialization.
        init_nimg: pictures that `init` has seen.
        state_dir: checkpoints live here.
        out_dir: gets snapshots, sample grids and `stats.jsonl`.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        state: RunState,
        descents: Mapping[str, Descent],
        init: dict[str, Tensor] | None,
        init_nimg: int,
        *,
        state_dir: Path,
        out_dir: Path,
        ranks: Ranks,
    ) -> None:
        self.spec, self.state, self.descents, self.ranks = spec, state, descents, ranks
        self.state_dir, self.out_dir = state_dir, out_dir
        self.networks = {name: network for name, network in state.networks.items() if name != "regularizers"}
        self.stop = StopFlag(answers=ranks.is_first)
        self.checkpoints = Checkpoints(state_dir)
        self.nimg, seconds = init_nimg, 0.0
        resumed = self.checkpoints.load()
        if resumed is not None:
            seconds = self._resume(*resumed)
        elif init is not None:
            state.load(init, "the snapshot to start from")
        self.stats = Stats(out_dir if ranks.is_first else None, self.nimg)
        self.starts_with_snapshot = self.nimg in spec.snapshots and resumed is None and ranks.is_first
        self.started = time.monotonic() - seconds
        self.tick = time.monotonic(), self.nimg
        hidden = None if ranks.is_first else True
        self.bar = tqdm(total=spec.total_nimg, initial=self.nimg, unit="img", disable=hidden, mininterval=1)

    def _resume(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> float:
        """Continue at a checkpoint; return the seconds until then."""
        self.state.load(tensors, str(self.state_dir))
        self.nimg = scalars["nimg"]
        for phase, descent in self.descents.items():
            descent.scaler.load_state_dict(scalars["scalers"][phase])
        if self.ranks.is_first:
            _log.info("continuing at %d images", self.nimg)
        if self.ranks.is_first and scalars["processes"] != self.ranks.size:
            _log.warning("%d processes in place of %d: sums round differently", self.ranks.size, scalars["processes"])
        return scalars["seconds"]

    @property
    def unfinished(self) -> bool:
        return self.nimg < self.spec.total_nimg

    @property
    def seconds(self) -> float:
        """Training time of this job, interruptions included."""
        return time.monotonic() - self.started

    def record(
        self,
        number: int,
        terms: Mapping[str, Tensor],
        played: Mapping[str, Any],
        measure: Callable[[], dict[str, float]],
        snapshot: Callable[[], None],
    ) -> None:
        """End step `number` (from 0), whose pictures `nimg` counts already: write what is due.

        Args:
            terms: numbers of the step, which have to be finite.
            played: what the step saw, by phase, for the dump where they are not.
            measure: more numbers for a line of statistics, asked for in the first process.
            snapshot: writes one.

        Raises:
            Stopped: a signal asked to stop; the state was saved.
            NumericalError: a term or a weight is not finite; the last checkpoint is kept.
        """
        spec, nimg, first = self.spec, self.nimg, self.ranks.is_first
        self.bar.update(spec.nimg_per_step)
        stopping = self.ranks.any(self.stop.set) and nimg < spec.total_nimg
        saving = stopping or nimg % spec.checkpoint_nimg == 0 or nimg == spec.total_nimg
        with dumped(self.state_dir.with_name("diverged"), self.networks, played):
            values = check_terms(terms, nimg)
            if saving or nimg in spec.snapshots:
                check_networks(self.networks, nimg)
        if nimg % spec.tick_nimg == 0 or nimg == spec.total_nimg:
            self._tick(number, self.ranks.mean(values), measure)
        if nimg in spec.snapshots and first:
            snapshot()
        if saving and first:
            self._save()
        if stopping:
            raise Stopped(f"stopped by a signal at {nimg} images, state saved; the same command continues")

    def _tick(self, number: int, values: dict[str, float], measure: Callable[[], dict[str, float]]) -> None:
        """Write a line of statistics."""
        now, (last, before) = time.monotonic(), self.tick
        rate = (self.nimg - before) / (now - last)
        if self.ranks.is_first:
            fields = {"step": number + 1, "seconds": now - self.started, "img_per_sec": rate, **values}
            self.stats.write(self.nimg, **fields, **measure())
        self.tick = time.monotonic(), self.nimg

    def _save(self) -> None:
        scalars = {
            "nimg": self.nimg,
            "seconds": self.seconds,
            "processes": self.ranks.size,
            "scalers": {phase: descent.scaler.state_dict() for phase, descent in self.descents.items()},
        }
        self.checkpoints.save(f"{self.nimg:012d}", self.state.tensors(), scalars)

    def finish(self) -> dict[str, Any]:
        """Return {"nimg", "seconds"}: pictures seen and training time."""
        return {"nimg": self.nimg, "seconds": self.seconds}

    @torch.no_grad()
    def snapshot(
        self, ready: nn.Module, gen_labels: Callable[[Draws], Tensor | None], metadata: dict[str, Any]
    ) -> None:
        """Write the state, and 64 pictures whose latents are the same in every run.

        Args:
            ready: the averaged generator, ready to sample; its state is written as `G_ema`.
        """
        tensors = self.state.tensors() | {f"G_ema.{k}": v for k, v in ready.state_dict().items()}
        path = self.out_dir / "snapshots" / f"{self.nimg:09d}.safetensors"
        write_tensors(path, tensors, metadata | {"grid": GRID})
        draws = Draws(GRID["seed"], GRID["stream"], torch.arange(GRID["pictures"], device=self.ranks.device))
        img = ready(draws.normal(ready.z_dim), gen_labels(draws))
        save_grid(path.with_suffix(".png"), to_uint8(img).cpu())


def prepare(spec: TrainingSpec, ranks: Ranks, **batches: int) -> None:
    """Check the settings that depend on the device and the number of processes, and set the device up.

    Args:
        batches: by their keys of the configuration.
    """
    for key, batch in batches.items():
        ranks.check(f"training.{key}", batch)
    if spec.precision == "fp16" and ranks.device.type == "cpu":
        raise ConfigError("training.precision: got fp16, expected fp32 or bf16 on a CPU")
    if ranks.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = spec.tf32
        torch.backends.cudnn.allow_tf32 = spec.tf32
