"""The bank of frozen networks: a linear probe ranks them, and the first ones join the discriminator.

The stage `probe` of a study and `pygan train --recipe vision_aided_...` choose here. `pygan.features.probe` has the
classifier and its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pygan.context import Context
from pygan.data.store import Store
from pygan.data.subset import parse_subset, select
from pygan.features.frozen import FrozenNetwork
from pygan.features.probe import SEPARABLE, linear_probe, rank
from pygan.sampling import device_of, sample, to_float
from pygan.spec import load_spec


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How networks are chosen."""

    bank: Sequence[Mapping[str, Any]]
    """Mappings with a `kind`, each a network of `pygan.features`."""
    count: int
    """Networks that play in all, those of `used` included."""
    pick: Literal["best", "worst"] = "best"
    """Which end of the ranking joins; worst: a control."""
    random_init: bool = False
    """Give the chosen networks random weights; a control."""
    n_images: int = 100
    """Real pictures at most, and as many generated ones."""
    criterion: str = "accuracy"
    """One of `pygan.features.probe.CRITERIA`."""
    repeats: int = 3
    """Random halves whose results are averaged."""


def choose(
    choice: Choice,
    store: Store,
    G: nn.Module,
    *,
    seed: int,
    subset: Mapping[str, Any] | None = None,
    used: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Rank the bank on the training pictures of a run and on pictures of its generator; return the answer for JSON.

    Args:
        store: training pictures.
        G: averaged generator; the networks compute on its device.
        subset: of a study's run; None: all pictures.
        used: the list "frozen" of an earlier answer; these networks stay and are not probed again.

    Returns:
        `criterion`, `pick`, `used` and `chosen` (names), `frozen` (what the training builds, in order; see
        `pygan.features.frozen.as_chosen`), `n_real`, `n_gen`, and `networks`: name -> result, the best first.

    Raises:
        MissingInput: the weights of a network are not there.
        NumericalError: a feature is not finite.
    """
    specs = {values.name: (values, dict(entry)) for entry in choice.bank for values in [_spec(entry)]}
    for item in used:
        specs.pop(item["name"], None)
    wanted = None if subset is None else parse_subset(subset)
    real = torch.from_numpy(store.read(select(store.labels, wanted, seed)[: choice.n_images]))
    gen = sample(G, len(real), seed=seed, stream="probe")
    ctx = Context(resolution=store.resolution, seed=seed, device=device_of(G) or torch.device("cpu"))
    results = {}
    with tqdm(specs.items(), desc="probe", disable=None) as bar:
        for name, (values, entry) in bar:
            network = values.build(ctx)
            result = linear_probe(*(_pooled(network, img) for img in (real, gen)), seed=seed, repeats=choice.repeats)
            settings = {"resolution": network.resolution, "separable": result["accuracy"] > SEPARABLE, "entry": entry}
            results[name] = result | settings
    order = rank(results, choice.criterion)
    best_first = order if choice.pick == "best" else order[::-1]
    control = {"random_init": True} if choice.random_init else {}
    added = [
        {"name": name, "entry": results[name]["entry"] | control, "separable": results[name]["separable"]}
        for name in best_first[: choice.count - len(used)]
    ]
    return {
        "criterion": choice.criterion,
        "pick": choice.pick,
        "used": [item["name"] for item in used],
        "chosen": [item["name"] for item in [*used, *added]],
        "frozen": [*used, *added],
        "n_real": len(real),
        "n_gen": len(gen),
        "networks": {name: results[name] for name in order},
    }


def _spec(entry: Mapping[str, Any]) -> Any:
    return load_spec("pygan.features", dict(entry), "bank")


@torch.no_grad()
def _pooled(network: FrozenNetwork, img: Tensor) -> Tensor:
    """Return the pooled features of uint8 pictures `[N, C, H, W]`, float32 `[N, D]` on the CPU."""
    device = network.scale.device
    return torch.cat([network.pooled(to_float(part.to(device))).cpu() for part in img.split(50)])
