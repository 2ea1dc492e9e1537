"""The statistics of a run: one JSON object a line, continued after an interruption without doubled lines."""

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)


class Stats:
    """Appends a line a tick to `stats.jsonl`, and to `tensorboard/` where that package is installed.

    Args:
        folder: where they go; None: nowhere, as in all processes but the first.
        nimg: pictures seen at the start; later lines of an interrupted run are removed.
    """

    def __init__(self, folder: Path | None, nimg: int) -> None:
        self._path = None if folder is None else folder / "stats.jsonl"
        self._board = None if folder is None else _tensorboard(folder / "tensorboard", nimg)
        if self._path is not None:
            lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
            kept = (line for line in lines if line.endswith("\n") and json.loads(line)["nimg"] <= nimg)
            self._path.write_text("".join(kept))

    def write(self, nimg: int, **fields: Any) -> None:
        """Append one line."""
        if self._path is None:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"nimg": nimg, **fields}) + "\n")
        if self._board is not None:
            for name, value in fields.items():
                self._board.add_scalar(name, value, nimg)
            self._board.flush()


def _tensorboard(folder: Path, nimg: int) -> Any | None:
    """Return a writer of TensorBoard events that hides those after `nimg`; None without that package."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=nimg + 1)


@torch.no_grad()
def mean_logits(D: nn.ModuleList, pictures: dict[str, tuple[Tensor, Tensor | None]]) -> dict[str, float]:
    """Return the mean logit of every head on every named set of un-augmented pictures.

    Keys are `logits/<set>` for the base discriminator and `head/<network>/<set>` for the others. A discriminator that
    generalizes scores held-out pictures like training pictures; one that memorizes scores them like generated ones.
    A discriminator that compares the pictures of a batch is shown all sets as one.
    """
    D.eval()
    result = {}
    for i, d in enumerate(D):
        shown = _shown_together(d, pictures) if d.compares else {k: d(*v, None) for k, v in pictures.items()}
        for name, heads in shown.items():
            for head, logits in zip(d.heads, heads, strict=True):
                result[f"logits/{name}" if i == 0 else f"head/{head}/{name}"] = float(logits.mean())
    D.train()
    return result


def _shown_together(d: nn.Module, pictures: dict[str, tuple[Tensor, Tensor | None]]) -> dict[str, list[Tensor]]:
    """Return the logits of every head on every set, all sets being one batch."""
    labels = [c for _, c in pictures.values() if c is not None]
    heads = d(torch.cat([img for img, _ in pictures.values()]), torch.cat(labels) if labels else None, None)
    parts = [logits.split([len(img) for img, _ in pictures.values()], dim=-1) for logits in heads]
    return {name: [part[k] for part in parts] for k, name in enumerate(pictures)}
