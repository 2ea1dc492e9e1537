"""The GAN training loop: one readable function for every base network and every method.

Methods enter as discriminators, regularizers and masks; the loop knows their interfaces and never their names. After
StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv 2006.06676): lazy regularization, half-life average, image counts as
the clock. All randomness is a function of (seed, stream, global sample index), so a run that is interrupted and
continued ends with the same bits.

Differs from the official code in:

- A step moves D, with R1 where it is due, and then G, with path length where it is due. There G moves first: Gmain,
  Greg, Dmain, Dreg.
- A term with interval k is due in the steps k - 1, 2 k - 1, ... from 0 on. There it is due in the steps 0, k, ...
- The ramp of the average's half-life counts the pictures of the step that ends. There it counts those before the step.
- Lazy terms of G use latents of the same step's move of G. There each phase draws latents of its own.

They change the numbers of a training, not what it optimizes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pygan.checkpoint import subset
from pygan.context import Regularizer, Reporting
from pygan.draws import Draws
from pygan.pruning.masks import Masked
from pygan.training.diagnosis import memory_advice
from pygan.training.distributed import Ranks
from pygan.training.ema import Average, standing_statistics
from pygan.training.game import Run, Side
from pygan.training.material import pictures
from pygan.training.progress import Progress, prepare
from pygan.training.runstate import RunState
from pygan.training.spec import TrainingSpec
from pygan.training.stats import mean_logits


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
        Stopped: a signal asked to stop; the state was saved.
        NumericalError: a loss or a weight stopped being finite; the last checkpoint is kept.
        ConfigError: a setting does not suit the device or the number of processes, or the batch its memory.
    """
    # ---- Networks, average, optimizers
    G, D = run.G.train().requires_grad_(False), run.D.train().requires_grad_(False)
    ranks = ranks or Ranks(0, 1, next(G.parameters()).device)
    g_batch = spec.g_batch or spec.batch
    prepare(spec, ranks, batch=spec.batch, g_batch=g_batch)
    average = Average(G, spec.ema_halflife_kimg * 1000, spec.ema_rampup, spec.ema_start_nimg)
    side_G = Side("G", G, spec.g_lr, Masked(G, subset(run.masks, "G.")), run, spec, ranks)
    side_D = Side("D", D, spec.d_lr, Masked(D, subset(run.masks, "D.")), run, spec, ranks)
    state = RunState(G, D, average.G, side_G.optimizer, side_D.optimizer, run.regularizers)
    if spec.compile:
        torch._dynamo.config.trace_numpy = False  # the counters behind the draws are uint64, which torch lacks
        torch._functorch.config.donated_buffer = False  # a term that measures gradients goes back more than once
        for network in (G, *D):
            network.compile()

    # ---- Start
    index = torch.arange(spec.monitor_images, device=ranks.device)
    monitor = {"train": pictures(run.batch, index), "validation": pictures(run.held_out, index)}
    sides = {"G": side_G, "D": side_D}
    progress = Progress(spec, state, sides, run.init, run.init_nimg, state_dir=state_dir, out_dir=out_dir, ranks=ranks)
    for masked in (side_G.masked, side_D.masked, Masked(average.G, subset(run.masks, "G."))):
        masked.zero_weights()

    def measure() -> dict[str, float]:
        shown = {**monitor, "generated": (step_G.gen_img.detach(), step_G.gen_c)}
        return mean_logits(D, shown) | _numbers(run.regularizers)

    def snapshot() -> None:
        ready = _ready(run, average, spec.standing_batches)
        progress.snapshot(ready, run.gen_labels, run.metadata(progress.nimg))

    # ---- Loop
    with progress.bar:  # closed before any message of an error
        if progress.starts_with_snapshot:
            snapshot()
        while progress.unfinished:
            number = progress.nimg // spec.nimg_per_step

            # Moves: D on each of its batches, then G
            with memory_advice(spec.batch_gpu or spec.batch // ranks.size):
                for _ in range(spec.d_steps):
                    index = torch.arange(progress.nimg, progress.nimg + spec.batch)
                    progress.nimg += spec.batch
                    step_D = side_D.move(number, progress.nimg, index)
                index = torch.arange(number * g_batch, (number + 1) * g_batch)
                step_G = side_G.move(number, progress.nimg, index)
            ranks.mean_(buffer for part in state.networks.values() for buffer in part.buffers())
            adapted = {
                f"augment/{i}/{name}": value
                for i, d in enumerate(D)
                for name, value in d.adapt(number, spec.nimg_per_step).items()
            }
            average.update(G, progress.nimg, spec.nimg_per_step)

            # Records: statistics, snapshots, checkpoints
            terms = side_D.terms | side_G.terms | adapted
            progress.record(number, terms, {"D": step_D, "G": step_G}, measure, snapshot)
    return progress.finish()


def _numbers(regularizers: Sequence[Regularizer]) -> dict[str, float]:
    """Return what the regularizers report of themselves."""
    return {
        f"{type(regularizer).__name__}/{name}": float(value)
        for regularizer in regularizers
        if isinstance(regularizer, Reporting)
        for name, value in regularizer.numbers().items()
    }


def _ready(run: Run, average: Average, batches: int) -> nn.Module:
    """Return a copy of the averaged generator whose statistics fit it."""
    draws = Draws(0, "standing", torch.arange(128 * max(batches, 1), device=next(run.G.parameters()).device))
    z, c = draws.normal(run.G.z_dim), run.gen_labels(draws)
    return standing_statistics(average.G, z, c, batches)
