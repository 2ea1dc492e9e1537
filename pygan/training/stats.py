"""The statistics of a run: one JSON object a line, continued after an interruption without doubled lines."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pygan.errors import NumericalError

_log = logging.getLogger(__name__)


class Stats:
    """Appends a line a tick to `path`, drops what a resumed run repeats, and stops at the first non-finite number.

    Args:
        nimg: pictures seen at the start; later lines of an interrupted run are removed.
    """

    def __init__(self, path: Path, nimg: int) -> None:
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if line.endswith("\n") and json.loads(line)["nimg"] <= nimg))
        self._terms: dict[str, Tensor] = {}

    def note(self, name: str, value: Tensor) -> None:
        """Remember the newest value of a loss term."""
        self._terms[name] = value.detach()

    def check(self, nimg: int) -> dict[str, float]:
        """Return the noted terms as numbers.

        Raises:
            NumericalError: one of them is not finite; the message names it.
        """
        values = {name: float(value) for name, value in self._terms.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise NumericalError(
                f"{bad[0]} became {values[bad[0]]} at {nimg} images; the last checkpoint is kept: lower the learning "
                "rate or look at the last lines of stats.jsonl"
            )
        return values

    def write(self, **fields: Any) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(fields) + "\n")


@torch.no_grad()
def mean_logits(D: nn.ModuleList, pictures: dict[str, tuple[Tensor, Tensor | None]]) -> dict[str, float]:
    """Return the mean logit of every head on every named set of un-augmented pictures.

    Keys are `logits/<set>` for the base discriminator and `head/<network>/<set>` for the others. A discriminator that
    generalizes scores held-out pictures like training pictures; one that memorizes scores them like generated ones.
    All sets go through D as one batch, because heads may standardize their features over it.
    """
    sizes = [len(img) for img, _ in pictures.values()]
    img = torch.cat([img for img, _ in pictures.values()])
    labels = [c for _, c in pictures.values() if c is not None]
    D.eval()
    result = {}
    for i, d in enumerate(D):
        for head, logits in zip(d.heads, d(img, torch.cat(labels) if labels else None, None), strict=True):
            for name, part in zip(pictures, logits.split(sizes, dim=-1), strict=True):
                result[f"logits/{name}" if i == 0 else f"head/{head}/{name}"] = float(part.mean())
    D.train()
    return result
