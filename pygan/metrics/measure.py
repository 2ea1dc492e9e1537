"""What the stages and `pygan train` do with metrics: name them by their network, and choose a snapshot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pygan.features.frozen import FrozenNetwork
from pygan.metrics.base import extract
from pygan.sampling import load_generator, sample
from pygan.spec import load_spec

_OF_A_NETWORK = ("fd", "kid")


def measure(
    metrics: Sequence[Mapping[str, Any]], real: Tensor, gen: Tensor, network: FrozenNetwork, key: str = "metrics"
) -> dict[str, dict[str, Any]]:
    """Return every number of `metrics` by its name, distances with the name of the network.

    Args:
        metrics: mappings with a `kind`.
        real: features `[N, D]`.
        gen: features `[M, D]`.
        network: whose features they are.
        key: where the metrics stand in a configuration, for error messages.
    """
    found = {}
    for i, values in enumerate(metrics):
        found |= _numbers(values, real, gen, network, f"{key}.{i}")
    return found


def _numbers(
    metric: Mapping[str, Any], real: Tensor, gen: Tensor, network: FrozenNetwork, key: str
) -> dict[str, dict[str, Any]]:
    numbers = load_spec("pygan.metrics", dict(metric), key).build().compute(real, gen)
    return {f"{name}_{network.name}" if name in _OF_A_NETWORK else name: found for name, found in numbers.items()}


def select(
    snapshots: Sequence[Path],
    real: Tensor,
    *,
    metric: Mapping[str, Any],
    n_gen: int,
    seed: int,
    network: FrozenNetwork,
    key: str = "select.metric",
) -> dict[str, Any]:
    """Return the snapshot whose pictures are nearest to `real`, and every score, ready for JSON.

    Args:
        snapshots: files named by their image count.
        real: features `[N, D]` of the validation split.
        metric: mapping with a `kind`; its first number decides, lowest is best.
        n_gen: generated pictures per snapshot.
    """
    scores, name = {}, ""
    for path in snapshots:
        gen = extract(sample(load_generator(path), n_gen, seed=seed, stream="select"), network)
        name, result = next(iter(_numbers(metric, real, gen, network, key).items()))
        scores[int(path.stem)] = result["value"]
    best = min(scores, key=scores.__getitem__)
    return {
        "nimg": best,
        "snapshot": f"{best:09d}.safetensors",
        "metric": name,
        "split": "validation",
        "n_gen": n_gen,
        "scores": {str(nimg): value for nimg, value in scores.items()},
    }
