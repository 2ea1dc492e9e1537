"""What all metrics share: the resize, the features, their checks, and the record of how a number came about."""

import importlib
import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pygan import __version__, features
from pygan.draws import Draws
from pygan.errors import ConfigError, NumericalError
from pygan.features.frozen import FrozenNetwork
from pygan.memory import in_memory
from pygan.metrics.resize import PROTOCOLS, resize
from pygan.spec import parse

_UNNAMED = {"precision", "recall", "density", "coverage", "diversity"}
_OF_PICTURES = ("_pictures", "_moved")

_PIXELS_ON_CPU = 3 << 19
"""Of a batch of pictures as the network sees them: 16 of 299 pixels a side."""
_INCEPTION = "inception_v3"
_FID = {"fd": "fid", "fd_infinity": "fid_infinity"}


def network_spec(values: Mapping[str, Any], key: str = "") -> Any:
    """Return the `Spec` of the feature network that `values["kind"]` names: one of the bank, or one for metrics only.

    Raises:
        ConfigError: as `pygan.spec.load_spec`.
    """
    kinds = (*features.METRIC_KINDS, *features.KINDS)
    kind = values.get("kind")
    if kind not in kinds:
        raise ConfigError(f"{key or 'network'}.kind: got {kind!r}, expected one of {', '.join(kinds)}")
    return parse(importlib.import_module(f"pygan.features.{kind}").Spec, dict(values), key)


def _batches(images: Tensor, batch: int) -> Iterator[tuple[Tensor, int]]:
    """Yield batches of equal size and the number of pictures that count; the last one is filled up."""
    for chunk in images.split(batch):
        missing = batch - len(chunk)
        yield (F.pad(chunk, (0, 0) * (chunk.dim() - 1) + (0, missing)) if missing else chunk), len(chunk)


@torch.no_grad()
def extract(images: Tensor, network: FrozenNetwork, batch: int = 50) -> Tensor:
    """Return the network's pooled features of pictures, float32 `[N, D]` on the CPU.

    A picture's features depend on nothing but the picture: batches are all of one size, the arithmetic is float32.
    Where memory is short, all of them are computed again with half the batch.

    Args:
        images: uint8 `[N, C, H, W]`, resized by `pygan.metrics.resize` to what the network sees.
        network: on the device that does the work.
        batch: pictures at a time, at most.

    Raises:
        NumericalError: a feature is not finite.
    """
    if network.scale.device.type == "cpu":  # maps that outgrow the caches cost a fifth of Inception's speed
        batch = max(1, min(batch, _PIXELS_ON_CPU // network.resolution**2))
    return in_memory(lambda size: _extract(images, network, size), batch)


def _extract(images: Tensor, network: FrozenNetwork, batch: int) -> Tensor:
    device = network.scale.device
    rows = []
    with (
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        tqdm(_batches(images, batch), network.name, -(-len(images) // batch), unit="batch", disable=None) as bar,
    ):
        for chunk, count in bar:
            img = resize(chunk.to(device), network.resolution, network.protocol) / 127.5 - 1
            rows.append(network.pooled(img)[:count].float().cpu())
    return check_finite(torch.cat(rows), f"the features of {network.name}")


def check_finite(values: Tensor, what: str) -> Tensor:
    """Return `values`, or raise `NumericalError` saying how many of its rows are not finite."""
    bad = int((~values.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise NumericalError(f"{what}: {bad} of {len(values)} rows contain values that are not finite")
    return values


def checked(real: Tensor, gen: Tensor, at_least: int = 2) -> tuple[Tensor, Tensor]:
    """Return two sets of features on the CPU, as they are.

    Args:
        real: `[N, D]`.
        gen: `[M, D]`.
        at_least: rows that the metric needs in each.

    Raises:
        ValueError: shapes that don't fit, or too few rows.
        NumericalError: a feature is not finite.
    """
    if real.dim() != 2 or gen.dim() != 2 or real.shape[1] != gen.shape[1]:
        raise ValueError(f"expected features [N, D] and [M, D], got {[*real.shape]} and {[*gen.shape]}")
    if min(len(real), len(gen)) < at_least:
        raise ValueError(f"expected at least {at_least} rows in each set, got {len(real)} and {len(gen)}")
    return check_finite(real.cpu(), "real features"), check_finite(gen.cpu(), "generated features")


def content_order(features: Tensor) -> Tensor:
    """Return an order of the rows of `[N, D]`, int64 `[N]`, that only their contents decide."""
    direction = Draws(0, "metrics/order", torch.arange(features.shape[1])).normal().double()
    keys = [(rows * direction).sum(1) for rows in features.split(16)]  # products that stay in the cache
    return torch.argsort(torch.cat(keys), stable=True)


def prepared(real: Tensor, gen: Tensor, at_least: int = 2) -> tuple[Tensor, Tensor]:
    """Check two sets of features as `checked`, and return them in float64, each in its `content_order`."""
    real, gen = (values.double() for values in checked(real, gen, at_least))
    return real[content_order(real)], gen[content_order(gen)]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, `hits` among `n`.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927. `scipy.stats` has it,
    too, but importing that takes a second.
    """
    z, p = NormalDist().inv_cdf(0.975), hits / n
    center, half_width = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((center + sign * half_width) / (1 + z**2 / n) for sign in (-1, 1))
    return low if hits else 0.0, high if hits < n else 1.0


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Classes of two sets of pictures, for a metric that needs `labels`."""

    real: Tensor
    """int64 `[N]`."""
    gen: Tensor
    """int64 `[M]`: the classes that were asked for."""
    names: tuple[str, ...]
    """Of the classes."""
    train_counts: tuple[int, ...]
    """Training pictures of each class."""

    @classmethod
    def one_class(cls, n_real: int, n_gen: int) -> "Labels":
        real, gen = (torch.zeros(n, dtype=torch.int64) for n in (n_real, n_gen))
        return cls(real=real, gen=gen, names=("pictures",), train_counts=(n_real,))


@dataclass(frozen=True, kw_only=True)
class Training:
    """The pictures that a run was trained on, for a metric that looks for copies of them."""

    features: Tensor
    """`[N, D]`."""
    index: Tensor
    """int64 `[N]`: their numbers in the training split."""
    pixels: Tensor | None = None
    """uint8 `[N, C, H, W]`; None: what pixels say is measured elsewhere, and the next two are None too."""
    gen_pixels: Tensor | None = None
    """uint8: the generated pictures."""
    real_pixels: Tensor | None = None
    """uint8: the real pictures of the reference split."""


def measure(
    metrics: Iterable[Any], network: str, real: Tensor, gen: Tensor, *, first: bool = True, **given: Any
) -> dict[str, dict[str, Any]]:
    """Return what the metrics find, by the names of `measured_name`.

    Args:
        metrics: one that `needs` something which is not given is left out; what it `takes` may be missing.
        network: whose features they are.
        real: features `[N, D]`.
        gen: features `[M, D]`.
        first: see `measured_name`.
        given: `labels` (`Labels`), `training` (`Training`), `classify` (features to logits); None: there are none.
    """
    results = {}
    for metric in metrics:
        needed = {name: given.get(name) for name in getattr(metric, "needs", ())}
        if all(value is not None for value in needed.values()):
            taken = {name: given.get(name) for name in getattr(metric, "takes", ())}
            results |= metric.compute(real, gen, **needed, **taken)
    return {measured_name(name, network, first=first): result for name, result in results.items()}


def measured_name(name: str, network: str, *, first: bool = True) -> str:
    """Return the name under which a number is recorded: with the network whose features it compares.

    The Fréchet distance is called FID with the Inception network of that name alone (`fid`, `fid_legacy_pytorch`,
    `fid_legacy_tensorflow`), with any other one `fd_<network>`.

    Args:
        first: the first judge of a study; those numbers of it that have always done without a name go on without.
    """
    if name.endswith(_OF_PICTURES) or (first and name.partition("_")[0] in _UNNAMED):
        return name
    if name in _FID and network.startswith(_INCEPTION) and not network.startswith(f"{_INCEPTION}_random"):
        return _FID[name] + network.removeprefix(_INCEPTION)
    return f"{name}_{network}"


def protocol_record(
    network: FrozenNetwork,
    *,
    n_real: int,
    n_gen: int,
    reference_split: str,
    seed: int | None,
    train_seed: int | None = None,
) -> dict:
    """Return how a set of metrics was computed: two numbers are comparable where their records agree.

    Args:
        network: whose features are compared.
        n_real: reference pictures.
        n_gen: generated pictures.
        reference_split: which split the reference pictures are: "train", "validation" or "test".
        seed: of the generated pictures; None: they were not generated.
        train_seed: of the training; None: there was none.
    """
    return {
        "network": f"{network.name} {network.resolution}px",
        "network_sha256": network.sha256,
        "resize": PROTOCOLS[network.protocol],
        "n_real": n_real,
        "n_gen": n_gen,
        "reference_split": reference_split,
        "seed": seed,
        "train_seed": train_seed,
        "dtype": "features float32, statistics float64",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy")},
            "pygan": __version__,
        },
    }
