"""Settings of a run as plain values: published configuration families, and a recipe for a number of pictures.

`family` gives the configurations of StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv 2006.06676), of its fork by
DiffAugment (Zhao et al., NeurIPS 2020, arXiv 2006.10738) and of its fork by vision-aided GAN (Kumari et al., CVPR 2022,
arXiv 2112.09130), which re-tuned them for a batch of 16. `recipe` is what `pygan train FOLDER` starts from.

Differs from the official code in: networks are written ten times in a training and at its start, not every 200
thousand pictures; numbers of pictures are rounded up to whole steps (the official loop ends at the first step that
reaches them).
"""

import math
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]
"""A mapping of the study file: texts, numbers, None, lists and mappings."""


def _diffaug(*policy: str) -> Values:
    return {"kind": "diffaug", "policy": list(policy)}


def _ada() -> Values:
    return {"kind": "ada", "family": "bgc", "target": 0.6}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the published tables."""

    gpus: int
    """That it was tuned for: each has `batch / gpus` pictures in memory at a time."""
    kimg: int
    """Length of the training, thousands of real pictures."""
    batch: int
    mbstd_group: int
    """Samples over which the minibatch standard deviation is taken."""
    fmaps: float
    """Channels in units of 32768 / resolution."""
    lr: float
    gamma: float
    """Weight of R1."""
    ema_kimg: float
    """Half-life of the average, thousands of pictures."""
    ema_rampup: float | None = None
    mapping_layers: int = 8


_PUBLISHED = {
    "stylegan2": Family(gpus=8, kimg=25_000, batch=32, mbstd_group=4, fmaps=1, lr=0.002, gamma=10, ema_kimg=10),
    "paper256": Family(gpus=8, kimg=25_000, batch=64, mbstd_group=8, fmaps=0.5, lr=0.0025, gamma=1, ema_kimg=20),
    "paper512": Family(gpus=8, kimg=25_000, batch=64, mbstd_group=8, fmaps=1, lr=0.0025, gamma=0.5, ema_kimg=20),
    "paper1024": Family(gpus=8, kimg=25_000, batch=32, mbstd_group=4, fmaps=1, lr=0.002, gamma=2, ema_kimg=10),
    "cifar": Family(
        gpus=2,
        kimg=100_000,
        batch=64,
        mbstd_group=32,
        fmaps=1,
        lr=0.0025,
        gamma=0.01,
        ema_kimg=500,
        ema_rampup=0.05,
        mapping_layers=2,
    ),
    "vision_aided_stylegan2": Family(
        gpus=4, kimg=25_000, batch=16, mbstd_group=4, fmaps=1, lr=0.002, gamma=10, ema_kimg=10
    ),
    "vision_aided_paper256": Family(
        gpus=2, kimg=25_000, batch=16, mbstd_group=4, fmaps=0.5, lr=0.002, gamma=1, ema_kimg=10
    ),
    "vision_aided_paper256_2fmap": Family(
        gpus=2, kimg=25_000, batch=16, mbstd_group=4, fmaps=1, lr=0.002, gamma=1, ema_kimg=10
    ),
    "vision_aided_paper512": Family(
        gpus=4, kimg=25_000, batch=16, mbstd_group=4, fmaps=1, lr=0.0025, gamma=0.5, ema_kimg=20
    ),
    "vision_aided_paper1024": Family(
        gpus=4, kimg=25_000, batch=16, mbstd_group=4, fmaps=1, lr=0.002, gamma=2, ema_kimg=10
    ),
}

FAMILIES = ("auto", "low_shot", *_PUBLISHED)
"""What `family` knows."""

_AIDED = "vision_aided_"
AIDED_STAGES = {400: (500, 1_000, 1_000, 1_000), 1_000: (500, 4_000, 1_000, 1_000), None: (500, 8_000, 2_000, 2_000)}
"""Training pictures at most -> thousand pictures of the published stages of vision-aided GAN, with no network, one, two
and three beside the discriminator; None: any number. Few-shot sets, FFHQ 1,000, larger sets (arXiv 2112.09130)."""


def _aided(count: int) -> list[Values]:
    """The discriminators of a published stage with `count` pretrained networks."""
    heads = {"heads": "equalized", "objective": "bce", "cutout": True}
    augment = {"kind": "ada", "family": "bgc", "target": 0.3}
    return [{"kind": "plain"}, {"kind": "vision_aided", "count": count, **heads, "augment": augment}]


def _row(name: str, resolution: int, processes: int) -> Family:
    if name == "auto":
        batch = max(min(processes * min(4096 // resolution, 32), 64), processes)
        return Family(
            gpus=processes,
            kimg=25_000,
            batch=batch,
            mbstd_group=min(batch // processes, 4),
            fmaps=1 if resolution >= 512 else 0.5,
            lr=0.002 if resolution >= 1024 else 0.0025,
            gamma=0.0002 * resolution**2 / batch,
            ema_kimg=batch * 10 / 32,
            ema_rampup=0.05,
            mapping_layers=2,
        )
    if name == "low_shot":
        return Family(
            gpus=processes, kimg=300, batch=8, mbstd_group=4, fmaps=1, lr=0.002, gamma=10, ema_kimg=10, mapping_layers=2
        )
    return _PUBLISHED[name]


def family(name: str, resolution: int, processes: int = 1) -> Values:
    """Return a published configuration of StyleGAN2-ADA: `base`, `loss`, `augment`, `regularizers` and `training`.

    Those of vision-aided GAN also have `discriminators`: those of the last stage, with three networks of a bank.

    Args:
        name: `auto`, `stylegan2`, `paper256`, `paper512`, `paper1024` or `cifar` of the authors; `low_shot` of
            DiffAugment; `vision_aided_...` of vision-aided GAN.
        resolution: side of the pictures, pixels; a power of two, 16 at least.
        processes: how many train together, one per GPU; `auto` and `low_shot` depend on it.

    Raises:
        ValueError: there is no such family, resolution or number of processes.
    """
    if name not in FAMILIES:
        raise ValueError(f"family: got {name!r}, expected one of {', '.join(FAMILIES)}")
    _check_resolution(resolution)
    if processes < 1:
        raise ValueError(f"processes: got {processes}, expected 1 at least")
    row = _row(name, resolution, processes)
    base: Values = {
        "kind": "stylegan2",
        "channel_base": int(row.fmaps * 32768),
        "mapping_layers": row.mapping_layers,
        "mbstd_group": row.mbstd_group,
        "half_resolutions": 4,
        "conv_clamp": 256.0,
    }
    regularizers = [{"kind": "r1", "gamma": row.gamma, "every": 16}]
    corrected: Values = {}
    if name == "cifar":
        base |= {"d_architecture": "orig", "style_mixing": 0.0}
        corrected = {"g_lazy_every": 4}  # published with a path length of weight 0 in every fourth step
    else:
        regularizers.append({"kind": "path_length", "weight": 2.0, "every": 4})
    return {
        **({"discriminators": _aided(3)} if name.startswith(_AIDED) else {}),
        "base": base,
        "loss": "non_saturating",
        "augment": _diffaug("color", "translation", "cutout") if name == "low_shot" else _ada(),
        "regularizers": regularizers,
        "training": {
            "batch": row.batch,
            "batch_gpu": row.batch // row.gpus,
            **budget(row.kimg, row.batch),
            "g_lr": row.lr,
            "d_lr": row.lr,
            "betas": [0.0, 0.99],
            "lazy": "separate",
            **corrected,
            "sanitize_gradients": True,
            "ema_halflife_kimg": row.ema_kimg,
            "ema_rampup": row.ema_rampup,
            "standing_batches": 0,
        },
    }


LONGEST_KIMG = 10_000_000
"""Four hundred times the longest published training, thousands of pictures."""


def budget(kimg: float, nimg_per_step: int, *, snapshots: int = 10) -> Values:
    """Return the numbers of pictures of a training as whole steps, rounded up.

    Args:
        kimg: length, thousands of real pictures.
        nimg_per_step: real pictures per step.
        snapshots: how many times networks are written, besides the start.

    Returns:
        `total_nimg`, `snapshots`, `tick_nimg` (4 thousand as published, at most a fifth of a part) and
        `checkpoint_nimg`.

    Raises:
        ValueError: no such length.
    """
    if not 0 < kimg <= LONGEST_KIMG:
        raise ValueError(f"kimg: got {kimg:g}, expected a number above 0, at most {LONGEST_KIMG:,}")

    def whole(nimg: float) -> int:
        return max(1, math.ceil(nimg / nimg_per_step)) * nimg_per_step

    counts = [whole(kimg * 1000 * part / snapshots) for part in range(1, snapshots + 1)]
    part = 1000 * kimg / snapshots
    return {
        "total_nimg": counts[-1],
        "snapshots": sorted({0, *counts}),
        "tick_nimg": whole(min(4000, part / 5)),
        "checkpoint_nimg": whole(min(200_000, part / 2)),
    }


# Recipes by the number of pictures


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole setting and why it is so."""

    name: str
    """`small`, `residual` or one of `FAMILIES`."""
    run: Values
    """`base`, `loss`, `augment`, `regularizers`, `training` and, with pretrained networks, `discriminators` of a run;
    what trains it adds the data set."""
    reasons: dict[str, str]
    """Key of the run to a sentence."""
    before: tuple[tuple[list[Values], float], ...] = ()
    """`discriminators` and length, thousand pictures, of the stages that come before `run`. A stage starts from the
    best snapshot of the one before, with new optimizers and augmentations, and counts its pictures from 0."""


RECIPES = ("small", "residual", *FAMILIES)
"""What `recipe` knows."""

FEW, SOME = 1_000, 10_000
"""Fewer pictures than the first are hundreds, fewer than the second thousands."""
PER_CLASS = 20
"""Pictures that a class needs on average to be worth learning by itself."""


def recipe(
    n_images: int,
    resolution: int,
    *,
    num_classes: int = 0,
    name: str | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> Recipe:
    """Return the setting for a number of pictures.

    Args:
        n_images: training pictures.
        resolution: their side, pixels; a power of two, 16 at least.
        num_classes: their classes; 0 or 1: not sorted into classes.
        name: one of `RECIPES`; None: chosen by `n_images` and `device`.
        device: `cpu`, or a kind of GPU.
        processes: how many train together; `auto` and `low_shot` depend on it.

    Raises:
        ValueError: there is no such recipe, resolution or number of processes, or no picture.
    """
    if name is not None and name not in RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(RECIPES)}")
    if n_images < 1:
        raise ValueError(f"n_images: got {n_images}, expected 1 at least")
    _check_resolution(resolution)
    reasons, before = {}, ()
    if name is None:
        name, reasons["base"] = _choose(n_images, device)
    else:
        reasons["base"] = f"{name} was asked for"
    if name == "small":
        run, more = _small(n_images, resolution)
    elif name == "residual":
        run, more = _residual(n_images, resolution)
    else:
        run, more = _family_for(name, n_images, resolution, processes)
    if name.startswith(_AIDED):
        before = _stages_before(n_images)
    run["base"]["conditional"], reasons["base.conditional"] = _conditional(n_images, num_classes)
    return Recipe(name=name, run=run, reasons=reasons | more, before=before)


def _check_resolution(resolution: int) -> None:
    if resolution < 16 or resolution & (resolution - 1):
        raise ValueError(f"resolution: got {resolution}, expected a power of two, 16 at least")


def _choose(n_images: int, device: str) -> tuple[str, str]:
    if device == "cpu" and n_images < SOME:
        return "small", "small: on a CPU a small DCGAN shows more per hour than a large network begins to"
    if device == "cpu":
        return "residual", f"residual: {SOME} pictures and more are worth a residual network, narrow for a CPU"
    if n_images < FEW:
        return "low_shot", "low_shot: DiffAugment's StyleGAN2 for a hundred pictures"
    return "auto", "auto: StyleGAN2-ADA's configuration by resolution and number of GPUs"


def _conditional(n_images: int, num_classes: int) -> tuple[bool, str]:
    if num_classes < 2:
        return False, "the pictures are not sorted into classes"
    if n_images < PER_CLASS * num_classes:
        return False, f"fewer than {PER_CLASS} pictures per class: labels would leave too few to learn from"
    return True, f"{num_classes} classes of {n_images // num_classes} pictures on average"


def _small(n_images: int, resolution: int) -> tuple[Values, dict[str, str]]:
    """A DCGAN for CPUs; the settings for hundreds of pictures were measured with 100 and 300 at 32 pixels."""
    few = n_images < FEW
    width = 32 if resolution <= 32 else 64
    kimg, lr, ema_kimg = (144, 1e-3, 7.4) if few else (400, 5e-4, 20.0)
    run = {
        "base": {"kind": "dcgan", "g_channels": width, "d_channels": width},
        "loss": "hinge",
        "augment": _diffaug("color", "translation", "cutout"),
        "regularizers": [{"kind": "r1", "gamma": 0.1 * (resolution / 32) ** 2, "every": 8}],
        "training": {
            "batch": 32,
            **budget(kimg, 32, snapshots=6),
            "g_lr": lr,
            "d_lr": lr,
            "betas": [0.5, 0.99],
            "ema_halflife_kimg": ema_kimg,
            "ema_rampup": 0.05,
        },
    }
    count = "hundreds" if few else "thousands"
    measured = "measured with 100 and 300 pictures" if few else "half, because training is longer; not measured"
    return run, {
        "augment": f"DiffAugment: with {count} of pictures the discriminator learns them by heart without it",
        "regularizers": "R1 of 0.1 at 32 pixels as measured, growing with the number of pixels as in StyleGAN2-ADA",
        "training.total_nimg": f"{kimg} thousand: DiffAugment starts slowly, the more so the more pictures there are",
        "training.g_lr": f"{lr:g} for {count} of pictures: {measured}",
        "training.ema_halflife_kimg": f"{ema_kimg:g} for {count} of pictures: about a twentieth of the training",
    }


def _residual(n_images: int, resolution: int) -> tuple[Values, dict[str, str]]:
    """An SNGAN narrow enough for CPUs."""
    shape = (
        {"widths": "constant", "g_channels": 32, "d_channels": 32}
        if resolution <= 32
        else {"widths": "pyramid", "g_channels": 16, "d_channels": 16}
    )
    run = {
        "base": {"kind": "sngan", **shape},
        "loss": "hinge",
        "augment": _diffaug("translation", "cutout"),
        "regularizers": [],
        "training": {
            "batch": 64,
            "d_steps": 2,
            **budget(1000, 128, snapshots=5),
            "g_lr": 2e-4,
            "d_lr": 2e-4,
            "betas": [0.0, 0.9],
            "ema_halflife_kimg": 50.0,
            "ema_rampup": 0.05,
        },
    }
    return run, {
        "augment": "DiffAugment without color, whose traces show where there are enough pictures",
        "regularizers": "none: spectral normalization holds the discriminator",
        "training.total_nimg": "1000 thousand: spectral normalization learns slowly and steadily",
        "training.g_lr": "2e-4 as published; spectral normalization bears no faster one",
        "training.ema_halflife_kimg": "50: a twentieth of the training",
    }


def _family_for(name: str, n_images: int, resolution: int, processes: int) -> tuple[Values, dict[str, str]]:
    """A published configuration, its length by the number of pictures."""
    run = family(name, resolution, processes)
    training = run["training"]
    reasons = {
        "augment": "as published: " + ("DiffAugment" if name == "low_shot" else "ADA, which strengthens itself"),
        "regularizers": "as published",
        "training.g_lr": f"{training['g_lr']:g} as published",
        "training.ema_halflife_kimg": f"{training['ema_halflife_kimg']:g} as published",
    }
    if name.startswith(_AIDED):
        *_, last = kimgs = _aided_kimgs(n_images)
        training |= budget(last, training["batch"])
        reasons["discriminators"] = (
            "a pretrained network joins after each stage, the one of the bank with which a linear probe tells real "
            "from generated pictures best; heads, their ADA and cutout as published"
        )
        reasons["training.total_nimg"] = (
            f"{sum(kimgs)} thousand in four stages of {', '.join(map(str, kimgs))}, as published for so many pictures"
        )
    elif name == "low_shot":
        reasons["training.total_nimg"] = "300 thousand as published for a hundred pictures"
    elif n_images < SOME:
        kimg = 5_000
        training |= budget(kimg, training["batch"])
        reasons["training.total_nimg"] = f"{kimg} thousand, as Reg-DGM trains StyleGAN2 on 5,000 pictures"
    else:
        reasons["training.total_nimg"] = f"{training['total_nimg'] // 1000} thousand as published"
    return run, reasons


def _aided_kimgs(n_images: int) -> tuple[int, ...]:
    return next(kimgs for most, kimgs in AIDED_STAGES.items() if most is None or n_images <= most)


def _stages_before(n_images: int) -> tuple[tuple[list[Values], float], ...]:
    """What comes before the last stage of vision-aided GAN: no network, one, two."""
    without = [{"kind": "plain"}]
    return tuple((_aided(count) if count else without, kimg) for count, kimg in enumerate(_aided_kimgs(n_images)[:-1]))
