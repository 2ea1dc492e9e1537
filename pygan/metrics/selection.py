"""Which snapshot of a run is the best one, by a metric."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pygan.features.frozen import FrozenNetwork
from pygan.metrics.base import extract, measured_name
from pygan.sampling import load_generator, sample
from pygan.spec import load_spec


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
    judge = load_spec("pygan.metrics", dict(metric), key).build()
    scores, name = {}, ""
    for path in snapshots:
        gen = extract(sample(load_generator(path).to(network.scale.device), n_gen, seed=seed, stream="select"), network)
        name, result = next(iter(judge.compute(real, gen).items()))
        scores[int(path.stem)] = result["value"]
    best = min(scores, key=scores.__getitem__)
    return {
        "nimg": best,
        "snapshot": f"{best:09d}.safetensors",
        "metric": measured_name(name, network.name),
        "split": "validation",
        "n_gen": n_gen,
        "scores": {str(nimg): value for nimg, value in scores.items()},
    }
