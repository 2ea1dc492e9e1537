"""The GAN training loop: one readable function for every base network and every method.

Methods enter as discriminators, regularizers and masks; the loop knows their interfaces and never their names. After
StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv 2006.06676): lazy regularization, half-life average, image counts as
the clock. All randomness is a function of (seed, stream, global sample index), so a run that is interrupted and
continued ends with the same bits.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pygan.checkpoint import Checkpoints, write_tensors
from pygan.context import Objective, Regularizer, Reporting, Step
from pygan.draws import Draws
from pygan.errors import TryAgain
from pygan.pruning.masks import Masked, Masks
from pygan.sampling import save_grid, to_float, to_uint8
from pygan.training.ema import Average, standing_statistics
from pygan.training.runstate import RunState, StopFlag
from pygan.training.spec import TrainingSpec
from pygan.training.stats import Stats, mean_logits

_log = logging.getLogger(__name__)

Batch = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Global sample indices int64 `[N]` to uint8 pictures `[N, C, H, W]` and labels `[N]` or None."""


@dataclass(kw_only=True)
class Run:
    """Everything the loop needs; see `train`."""

    seed: int
    G: nn.Module
    D: nn.ModuleList
    objective: Objective
    regularizers: Sequence[Regularizer]
    batch: Batch
    """Training pictures."""
    held_out: Batch
    """Validation pictures, for the statistics alone."""
    gen_labels: Callable[[Draws], Tensor | None]
    """Labels for generated pictures."""
    masks: Masks
    """Living weights of G; empty: dense."""
    init: dict[str, Tensor] | None
    """State to start from, or None: the networks as they are."""
    init_nimg: int
    """Pictures that `init` has seen."""
    metadata: Callable[[int], dict[str, Any]]
    """Image count to the metadata of a snapshot."""


def train(run: Run, spec: TrainingSpec, *, state_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Train until `spec.total_nimg`, writing snapshots, sample grids and `stats.jsonl` to `out_dir`.

    Args:
        state_dir: checkpoints live here; training continues at the newest one.

    Returns:
        {"nimg", "seconds"}: pictures seen and training time of this job, interruptions included.

    Raises:
        TryAgain: a signal asked to stop; the state was saved.
        NumericalError: a loss stopped being finite; the last checkpoint is kept.
    """
    # ---- Networks, average, optimizers
    G, D = run.G.train().requires_grad_(False), run.D.train().requires_grad_(False)
    average = Average(G, spec.ema_halflife_kimg * 1000, spec.ema_rampup)
    opt_G = torch.optim.Adam(G.parameters(), lr=spec.g_lr, betas=spec.betas, eps=1e-8, fused=True)
    opt_D = torch.optim.Adam(D.parameters(), lr=spec.d_lr, betas=spec.betas, eps=1e-8, fused=True)
    state = RunState(G, D, average.G, opt_G, opt_D, run.regularizers)
    stop = StopFlag()

    # ---- Start: newest checkpoint, else the given state, else the initialization
    checkpoints = Checkpoints(state_dir)
    nimg, seconds = run.init_nimg, 0.0
    if resumed := checkpoints.load():
        state.load(resumed[0], str(state_dir))
        nimg, seconds = resumed[1]["nimg"], resumed[1]["seconds"]
        _log.info("continuing at %d images", nimg)
    elif run.init is not None:
        state.load(run.init, "the snapshot to start from")
    masked = Masked(G, run.masks)
    masked.zero_weights()
    Masked(average.G, run.masks).zero_weights()
    stats = Stats(out_dir / "stats.jsonl", nimg)
    monitor = _monitored(run, spec)
    if nimg in spec.snapshots and resumed is None:
        _snapshot(run, spec, state, average, nimg, out_dir)

    # ---- Loop
    started = time.monotonic() - seconds
    tick_start, tick_nimg = time.monotonic(), nimg
    bar = tqdm(total=spec.total_nimg, initial=nimg, unit="img", disable=None, mininterval=1)
    while nimg < spec.total_nimg:
        step_number = nimg // spec.nimg_per_step

        # Discriminator steps
        D.requires_grad_(True)
        for _ in range(spec.d_steps):
            index = torch.arange(nimg, nimg + spec.batch)
            nimg += spec.batch
            step = _step(run, "D", step_number, nimg, index)
            real_img, step.real_c = run.batch(index)
            step.real_img = _channels_last(to_float(real_img))
            with torch.no_grad():
                _generate(run, step)
            step.real_logits, step.gen_logits = _discriminate_pair(step)
            objectives = _objectives(step)
            loss = sum(
                o.D(real, gen) for o, real, gen in zip(objectives, step.real_logits, step.gen_logits, strict=True)
            )
            stats.note("loss/D", loss)
            loss = _regularize(loss, run.regularizers, step, stats)
            opt_D.zero_grad(set_to_none=True)
            loss.backward()
            opt_D.step()
        D.requires_grad_(False)
        for i, d in enumerate(D):
            for name, value in d.adapt(step_number, spec.nimg_per_step).items():
                stats.note(f"augment/{i}/{name}", value)

        # Generator step
        G.requires_grad_(True)
        g_batch = spec.g_batch or spec.batch
        index = torch.arange(step_number * g_batch, (step_number + 1) * g_batch)
        step = _step(run, "G", step_number, nimg, index)
        _generate(run, step)
        step.gen_logits = [
            logits for i, d in _players(step) for logits in d(step.gen_img, step.gen_c, step.draws(f"augment/{i}"))
        ]
        loss = sum(o.G(gen) for o, gen in zip(_objectives(step), step.gen_logits, strict=True))
        stats.note("loss/G", loss)
        loss = _regularize(loss, run.regularizers, step, stats)
        opt_G.zero_grad(set_to_none=True)
        loss.backward()
        masked.zero_gradients()
        opt_G.step()
        masked.zero_weights()
        G.requires_grad_(False)
        average.update(G, nimg, spec.nimg_per_step)

        # Records: statistics, snapshots, checkpoints
        bar.update(spec.nimg_per_step)
        stopping = stop.set and nimg < spec.total_nimg
        losses = stats.check(nimg)
        if nimg % spec.tick_nimg == 0 or nimg == spec.total_nimg:
            now = time.monotonic()
            rate = (nimg - tick_nimg) / (now - tick_start)
            logits = mean_logits(D, {**monitor, "generated": (step.gen_img.detach(), step.gen_c)})
            numbers = _numbers(run.regularizers)
            fields = {"nimg": nimg, "step": step_number + 1, "seconds": now - started, "img_per_sec": rate}
            stats.write(**fields, **losses, **logits, **numbers)
            tick_start, tick_nimg = time.monotonic(), nimg
        if nimg in spec.snapshots:
            _snapshot(run, spec, state, average, nimg, out_dir)
        if stopping or nimg % spec.checkpoint_nimg == 0:
            scalars = {"nimg": nimg, "seconds": time.monotonic() - started}
            checkpoints.save(f"{nimg:012d}", state.tensors(), scalars)
        if stopping:
            raise TryAgain(f"stopped by a signal at {nimg} images, state saved; the same command continues")
    bar.close()
    return {"nimg": nimg, "seconds": time.monotonic() - started}


def _step(run: Run, phase: str, number: int, nimg: int, index: Tensor) -> Step:
    return Step(
        phase=phase, step=number, nimg=nimg, G=run.G, D=run.D, objective=run.objective, index=index, seed=run.seed
    )


def _players(step: Step) -> list[tuple[int, nn.Module]]:
    """Return the discriminators that have joined the game, with their places in the list."""
    return [(i, d) for i, d in enumerate(step.D) if step.nimg > d.warmup_nimg]


def _objectives(step: Step) -> list[Objective]:
    """Return one objective per head of the players."""
    return [objective for _, d in _players(step) for objective in d.objectives(step.objective)]


def _channels_last(img: Tensor) -> Tensor:
    return img.contiguous(memory_format=torch.channels_last)


def _generate(run: Run, step: Step) -> None:
    """Draw latents and labels for the step and run G on them, with fresh noise."""
    step.gen_z = step.draws("z").normal(run.G.z_dim)
    step.gen_c = run.gen_labels(step.draws("c"))
    step.gen_img = run.G(step.gen_z, step.gen_c, step.draws("synthesis"))


def _discriminate_pair(step: Step) -> tuple[list[Tensor], list[Tensor]]:
    """Return every head's logits of the real and of the generated pictures, seen in one batch."""
    index = torch.cat([2 * step.index, 2 * step.index + 1])
    real, gen = [], []
    for i, d in _players(step):
        real_img, real_c = d.real(step, step.draws(f"deceive/{i}"))
        img = _channels_last(torch.cat([real_img, step.gen_img]))
        c = None if real_c is None else torch.cat([real_c, step.gen_c])
        heads = d(img, c, Draws(step.seed, f"augment/{i}/D", index))
        halves = [logits.chunk(2, dim=-1) for logits in heads]
        d.observe([half for half, _ in halves])
        real += [half for half, _ in halves]
        gen += [half for _, half in halves]
    return real, gen


def _regularize(loss: Tensor, regularizers: Sequence[Regularizer], step: Step, stats: Stats) -> Tensor:
    """Add the terms that are due in this phase, weighted by their interval."""
    for regularizer in regularizers:
        if step.phase in regularizer.phases and step.due(regularizer.every):
            term = regularizer(step)
            stats.note(f"loss/{step.phase}/{type(regularizer).__name__}", term)
            loss = loss + regularizer.every * term
    return loss


def _numbers(regularizers: Sequence[Regularizer]) -> dict[str, float]:
    """Return what the regularizers report of themselves."""
    return {
        f"{type(regularizer).__name__}/{name}": float(value)
        for regularizer in regularizers
        if isinstance(regularizer, Reporting)
        for name, value in regularizer.numbers().items()
    }


def _monitored(run: Run, spec: TrainingSpec) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return the fixed training and held-out pictures on which logits are recorded."""
    index = torch.arange(spec.monitor_images)
    sets = {"train": run.batch(index), "validation": run.held_out(index)}
    return {name: (_channels_last(to_float(img)), c) for name, (img, c) in sets.items()}


@torch.no_grad()
def _snapshot(run: Run, spec: TrainingSpec, state: RunState, average: Average, nimg: int, out_dir: Path) -> None:
    """Write the state with a ready-to-sample `G_ema`, and 64 pictures whose latents are the same in every run."""
    draws = Draws(0, "standing", torch.arange(128 * max(spec.standing_batches, 1)))
    z, c = draws.normal(run.G.z_dim), run.gen_labels(draws)
    ready = standing_statistics(average.G, z, c, spec.standing_batches)
    tensors = state.tensors() | {f"G_ema.{k}": v for k, v in ready.state_dict().items()}
    write_tensors(out_dir / "snapshots" / f"{nimg:09d}.safetensors", tensors, run.metadata(nimg))
    draws = Draws(0, "grid", torch.arange(64))
    img = ready(draws.normal(run.G.z_dim), run.gen_labels(draws))
    save_grid(out_dir / "snapshots" / f"{nimg:09d}.png", to_uint8(img))
