"""The training loop of denoisers: one network, one loss, the conventions of the GANs' loop.

After EDM (Karras et al., NeurIPS 2022, arXiv 2206.00364): preconditioning and noise levels of the objective, a
half-life average with a ramp, Adam with a linear warm-up, augmentation whose labels the network is told. All randomness
is a function of (seed, stream, global sample index), so a run that is interrupted and continued ends with the same
bits.

Differs from the official code in: the warm-up is at most 5 % of the training, where EDM's 10 million pictures would
leave a short one at a fraction of its learning rate; the first step moves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pygan.diffusion.loss import Noised, Objective
from pygan.draws import Draws
from pygan.pruning.masks import Masked
from pygan.training.descent import Descent
from pygan.training.diagnosis import memory_advice
from pygan.training.distributed import Ranks
from pygan.training.ema import Average
from pygan.training.material import Batch, pictures
from pygan.training.progress import Progress, prepare
from pygan.training.runstate import RunState
from pygan.training.spec import TrainingSpec

BETAS = (0.9, 0.999)
"""Adam's moments where the training does not say."""
LEVELS = 8
"""Noise levels at which losses are recorded, each in the middle of as many draws of the training as every other."""


@dataclass(kw_only=True)
class Run:
    """Everything that the loop needs besides its budget."""

    seed: int
    G: nn.Module
    """Makes pictures with its `denoiser`."""
    objective: Objective
    augment: Any | None
    """Has `labeled(img, draws)`; None: none."""
    batch: Batch
    """Training pictures."""
    held_out: Batch
    """Validation pictures, for the statistics alone."""
    gen_labels: Callable[[Draws], Tensor | None]
    """Labels for generated pictures."""
    init: dict[str, Tensor] | None
    """State to start from, or None: the network as it is."""
    init_nimg: int
    """Pictures that `init` has seen."""
    metadata: Callable[[int], dict[str, Any]]
    """Image count to the metadata of a snapshot."""


def train(
    run: Run, spec: TrainingSpec, *, state_dir: Path, out_dir: Path, ranks: Ranks | None = None
) -> dict[str, Any]:
    """Train until `spec.total_nimg`, writing snapshots, sample grids and `stats.jsonl` to `out_dir`.

    Arguments, result and errors are those of `pygan.training.gan.train`.
    """
    # ---- Network, average, optimizer
    G = run.G.train()
    ranks = ranks or Ranks(0, 1, next(G.parameters()).device)
    prepare(spec, ranks, batch=spec.batch)
    average = Average(G, spec.ema_halflife_kimg * 1000, spec.ema_rampup, spec.ema_start_nimg)
    descent = Descent(G, spec.g_lr, spec.betas or BETAS, Masked(G, {}), spec, ranks)
    state = RunState(G, nn.ModuleList(), average.G, descent.optimizer, None)
    if spec.compile:
        torch._dynamo.config.trace_numpy = False  # the counters behind the draws are uint64, which torch lacks
        G.denoiser.network.compile()

    # ---- Start
    index = torch.arange(spec.monitor_images, device=ranks.device)
    monitor = {"train": pictures(run.batch, index), "validation": pictures(run.held_out, index)}
    progress = Progress(
        spec, state, {"G": descent}, run.init, run.init_nimg, state_dir=state_dir, out_dir=out_dir, ranks=ranks
    )

    def measure() -> dict[str, float]:
        return denoising_losses(average.G.denoiser, run.objective, monitor, spec.batch_gpu or spec.batch)

    def snapshot() -> None:
        progress.snapshot(average.G, run.gen_labels, run.metadata(progress.nimg))

    # ---- Loop
    warmup = warmup_nimg(spec)
    with progress.bar:  # closed before any message of an error
        if progress.starts_with_snapshot:
            snapshot()
        while progress.unfinished:
            number = progress.nimg // spec.batch
            index = torch.arange(progress.nimg, progress.nimg + spec.batch)
            progress.nimg += spec.batch
            for group in descent.optimizer.param_groups:
                group["lr"] = spec.g_lr * min(progress.nimg / max(warmup, 1), 1.0)
            with memory_advice(spec.batch_gpu or spec.batch // ranks.size):
                loss, noised = descend(run, descent, ranks.share(index))
            average.update(G, progress.nimg, spec.batch)
            progress.record(number, {"loss/denoiser": loss}, {"G": noised}, measure, snapshot)
    return progress.finish()


def warmup_nimg(spec: TrainingSpec) -> float:
    """Return the pictures over which the learning rate rises."""
    if spec.warmup_kimg is not None:
        return spec.warmup_kimg * 1000
    return min(10e6, 0.05 * spec.total_nimg)


def descend(run: Run, descent: Descent, share: Tensor) -> tuple[Tensor, Noised]:
    """Make one move on the samples `share`; return their mean loss and the noisy pictures that came last."""
    descent.begin()
    mean = torch.zeros([], device=share.device)
    for index in descent.micro_batches(share):
        img, c = pictures(run.batch, index)
        labels = {}
        if run.augment is not None:
            img, labels["augment"] = run.augment.labeled(img, Draws(run.seed, "augment", index))
        noised = run.objective(img, Draws(run.seed, "noise", index))
        with descent.autocast():
            dropout = Draws(run.seed, "dropout", index)
            x0 = run.G.denoiser(noised.z, noised.sigma, c, draws=dropout, **labels)
        loss = noised.loss(x0).mean()
        weight = len(index) / len(share)
        descent.add(weight * loss)
        mean += weight * loss.detach()
    descent.apply()
    return mean, noised


@torch.no_grad()
def denoising_losses(
    denoiser: nn.Module, objective: Objective, monitor: dict[str, tuple[Tensor, Tensor | None]], batch: int
) -> dict[str, float]:
    """Return the weighted loss per value on every named set of pictures, without augmentation and with the same noise.

    Keys are `denoising/<set>` and `denoising/<set>/<sigma>` for each of the levels, which pictures take by turns.
    A denoiser that generalizes has the same loss on both sets; the gap is what it knows of its training pictures alone.
    """
    sigmas = objective.spec.sigma((torch.arange(LEVELS) + 0.5) / LEVELS)
    result = {}
    for name, (img, c) in monitor.items():
        place = torch.arange(len(img), device=img.device)
        losses = []
        for part in place.split(batch):
            noised = objective.spec.noised(img[part], sigmas[part.cpu() % LEVELS], Draws(0, "monitor", part))
            losses.append(noised.loss(denoiser.denoise(noised.z, noised.sigma, None if c is None else c[part])))
        losses = torch.cat(losses)
        result[f"denoising/{name}"] = float(losses.mean())
        for level, sigma in enumerate(sigmas.tolist()):
            if level < len(losses):
                result[f"denoising/{name}/{sigma:.3g}"] = float(losses[level::LEVELS].mean())
    return result
