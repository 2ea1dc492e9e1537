"""The GAN training loop: one readable function for every base network and every method.

Methods enter as discriminators, regularizers and masks; the loop knows their interfaces and never their names. After
StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv 2006.06676): lazy regularization, half-life average, image counts as
the clock. All randomness is a function of (seed, stream, global sample index), so a run that is interrupted and
continued ends with the same bits.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pygan.checkpoint import Checkpoints, subset, write_tensors
from pygan.context import Regularizer, Reporting
from pygan.draws import Draws
from pygan.errors import ConfigError, TryAgain
from pygan.pruning.masks import Masked
from pygan.sampling import save_grid, to_uint8
from pygan.training.diagnosis import check_networks, check_terms, dumped, memory_advice
from pygan.training.distributed import Ranks
from pygan.training.ema import Average, standing_statistics
from pygan.training.game import Run, Side, pictures
from pygan.training.runstate import RunState, StopFlag
from pygan.training.spec import TrainingSpec
from pygan.training.stats import Stats, mean_logits

_log = logging.getLogger(__name__)

GRID = {"seed": 0, "stream": "grid", "pictures": 64}
"""Where the latents of every sample grid come from."""


def train(
    run: Run, spec: TrainingSpec, *, state_dir: Path, out_dir: Path, ranks: Ranks | None = None
) -> dict[str, Any]:
    """Train until `spec.total_nimg`, writing snapshots, sample grids and `stats.jsonl` to `out_dir`.

    Args:
        state_dir: checkpoints live here; training continues at the newest one, with as many processes as there are now.
        ranks: this process among those of the training; None: it is alone, on the device of G.

    Returns:
        {"nimg", "seconds"}: pictures seen and training time of this job, interruptions included.

    Raises:
        TryAgain: a signal asked to stop; the state was saved.
        NumericalError: a loss or a weight stopped being finite; the last checkpoint is kept.
        ConfigError: a setting does not suit the device or the number of processes, or the batch its memory.
    """
    # ---- Networks, average, optimizers
    G, D = run.G.train().requires_grad_(False), run.D.train().requires_grad_(False)
    ranks = ranks or Ranks(0, 1, next(G.parameters()).device)
    _prepare(spec, ranks)
    average = Average(G, spec.ema_halflife_kimg * 1000, spec.ema_rampup, spec.ema_start_nimg)
    side_G = Side("G", G, spec.g_lr, Masked(G, subset(run.masks, "G.")), run, spec, ranks)
    side_D = Side("D", D, spec.d_lr, Masked(D, subset(run.masks, "D.")), run, spec, ranks)
    state = RunState(G, D, average.G, side_G.optimizer, side_D.optimizer, run.regularizers)
    networks = {"G": G, "D": D, "G_ema": average.G}
    if spec.compile:
        torch._dynamo.config.trace_numpy = False  # the counters behind the draws are uint64, which torch lacks
        torch._functorch.config.donated_buffer = False  # a term that measures gradients goes back more than once
        for network in (G, *D):
            network.compile()
    stop = StopFlag()

    # ---- Start: newest checkpoint, else the given state, else the initialization
    checkpoints = Checkpoints(state_dir)
    nimg, seconds = run.init_nimg, 0.0
    if resumed := checkpoints.load():
        state.load(resumed[0], str(state_dir))
        scalars = resumed[1]
        nimg, seconds = scalars["nimg"], scalars["seconds"]
        for side in (side_G, side_D):
            side.scaler.load_state_dict(scalars["scalers"][side.phase])
        _log.info("continuing at %d images", nimg)
        if scalars["processes"] != ranks.size:
            _log.warning("%d processes in place of %d: sums round differently", ranks.size, scalars["processes"])
    elif run.init is not None:
        state.load(run.init, "the snapshot to start from")
    for masked in (side_G.masked, side_D.masked, Masked(average.G, subset(run.masks, "G."))):
        masked.zero_weights()
    stats = Stats(out_dir if ranks.is_first else None, nimg)
    index = torch.arange(spec.monitor_images, device=ranks.device)
    monitor = {"train": pictures(run.batch, index), "validation": pictures(run.held_out, index)}
    if nimg in spec.snapshots and resumed is None and ranks.is_first:
        _snapshot(run, spec, state, average, nimg, out_dir)

    # ---- Loop
    started = time.monotonic() - seconds
    tick_start, tick_nimg = time.monotonic(), nimg
    bar = tqdm(total=spec.total_nimg, initial=nimg, unit="img", disable=None if ranks.is_first else True, mininterval=1)
    while nimg < spec.total_nimg:
        number = nimg // spec.nimg_per_step

        # Moves: D on each of its batches, then G
        with memory_advice(spec.batch_gpu or spec.batch // ranks.size):
            for _ in range(spec.d_steps):
                index = torch.arange(nimg, nimg + spec.batch)
                nimg += spec.batch
                step_D = side_D.move(number, nimg, index)
            g_batch = spec.g_batch or spec.batch
            step_G = side_G.move(number, nimg, torch.arange(number * g_batch, (number + 1) * g_batch))
        ranks.mean_(buffer for part in state.networks.values() for buffer in part.buffers())
        adapted = {
            f"augment/{i}/{name}": value
            for i, d in enumerate(D)
            for name, value in d.adapt(number, spec.nimg_per_step).items()
        }
        average.update(G, nimg, spec.nimg_per_step)

        # Records: statistics, snapshots, checkpoints
        bar.update(spec.nimg_per_step)
        stopping = ranks.any(stop.set) and nimg < spec.total_nimg
        saving = stopping or nimg % spec.checkpoint_nimg == 0
        with dumped(state_dir.with_name("diverged"), networks, {"D": step_D, "G": step_G}):
            terms = check_terms(side_D.terms | side_G.terms | adapted, nimg)
            if saving or nimg in spec.snapshots:
                check_networks(networks, nimg)
        if nimg % spec.tick_nimg == 0 or nimg == spec.total_nimg:
            now = time.monotonic()
            rate = (nimg - tick_nimg) / (now - tick_start)
            fields = {"step": number + 1, "seconds": now - started, "img_per_sec": rate, **ranks.mean(terms)}
            if ranks.is_first:
                logits = mean_logits(D, {**monitor, "generated": (step_G.gen_img.detach(), step_G.gen_c)})
                stats.write(nimg, **fields, **logits, **_numbers(run.regularizers))
            tick_start, tick_nimg = time.monotonic(), nimg
        if nimg in spec.snapshots and ranks.is_first:
            _snapshot(run, spec, state, average, nimg, out_dir)
        if saving and ranks.is_first:
            scalars = {
                "nimg": nimg,
                "seconds": time.monotonic() - started,
                "processes": ranks.size,
                "scalers": {side.phase: side.scaler.state_dict() for side in (side_G, side_D)},
            }
            checkpoints.save(f"{nimg:012d}", state.tensors(), scalars)
        if stopping:
            raise TryAgain(f"stopped by a signal at {nimg} images, state saved; the same command continues")
    bar.close()
    return {"nimg": nimg, "seconds": time.monotonic() - started}


def _prepare(spec: TrainingSpec, ranks: Ranks) -> None:
    """Check the settings that depend on the device and the number of processes, and set the device up."""
    ranks.check("training.batch", spec.batch)
    ranks.check("training.g_batch", spec.g_batch or spec.batch)
    if spec.precision == "fp16" and ranks.device.type == "cpu":
        raise ConfigError("training.precision: got fp16, expected fp32 or bf16 on a CPU")
    if ranks.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = spec.tf32
        torch.backends.cudnn.allow_tf32 = spec.tf32


def _numbers(regularizers: Sequence[Regularizer]) -> dict[str, float]:
    """Return what the regularizers report of themselves."""
    return {
        f"{type(regularizer).__name__}/{name}": float(value)
        for regularizer in regularizers
        if isinstance(regularizer, Reporting)
        for name, value in regularizer.numbers().items()
    }


@torch.no_grad()
def _snapshot(run: Run, spec: TrainingSpec, state: RunState, average: Average, nimg: int, out_dir: Path) -> None:
    """Write the state with a ready-to-sample `G_ema`, and 64 pictures whose latents are the same in every run."""
    device = next(run.G.parameters()).device
    draws = Draws(0, "standing", torch.arange(128 * max(spec.standing_batches, 1), device=device))
    z, c = draws.normal(run.G.z_dim), run.gen_labels(draws)
    ready = standing_statistics(average.G, z, c, spec.standing_batches)
    tensors = state.tensors() | {f"G_ema.{k}": v for k, v in ready.state_dict().items()}
    write_tensors(out_dir / "snapshots" / f"{nimg:09d}.safetensors", tensors, run.metadata(nimg) | {"grid": GRID})
    draws = Draws(GRID["seed"], GRID["stream"], torch.arange(GRID["pictures"], device=device))
    img = ready(draws.normal(run.G.z_dim), run.gen_labels(draws))
    save_grid(out_dir / "snapshots" / f"{nimg:09d}.png", to_uint8(img).cpu())
