"""What a snapshot is: the facts that `pygan inspect` prints, from the file and from the records beside it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pygan.sampling import Model

_RECORDED = ("run", "dataset", "recipe", "methods", "seed", "date")
"""Keys of `run.json` and `plan.json`, the records of a training, which are shown where they are there."""


def facts(model: Model) -> dict[str, Any]:
    """Return the facts by name, ready for JSON."""
    parameters = list(model.G.parameters())
    return {
        "path": str(model.path),
        "written": datetime.fromtimestamp(model.path.stat().st_mtime).astimezone().isoformat(timespec="seconds"),
        **model.metadata["context"],
        "class_names": list(model.class_names),
        "nimg": model.metadata["nimg"],
        "G_parameters": sum(p.numel() for p in parameters),
        "G_zeros": sum(int((p == 0).sum()) for p in parameters if p.dim() > 1),
        "base": model.metadata["base"],
        "training": _recorded(model.path),
    }


def text(found: dict[str, Any]) -> str:
    """Format what `facts` returned for a person, a line per fact."""
    side, zeros = found["resolution"], found["G_zeros"]
    names = ", ".join(f"{i} {name}" for i, name in enumerate(found["class_names"]))
    base = {name: value for name, value in found["base"].items() if name != "kind"}
    lines = {
        "snapshot": found["path"],
        "written": found["written"],
        "pictures": f"{side} x {side} pixels, {found['channels']} channels",
        "classes": f"{found['num_classes']}{names and f' ({names})'}" if found["num_classes"] else "none",
        "trained on": f"{found['nimg']:,} images, shown one after another",
        "parameters of G": f"{found['G_parameters']:,}" + (f", {zeros:,} of them zero" if zeros else ""),
        "base network": found["base"]["kind"],
        **{f"  {name}": value for name, value in base.items()},
        **{name: _plain(value) for name, value in found["training"].items()},
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _recorded(snapshot: Path) -> dict[str, Any]:
    """Return what the records of the training of a snapshot tell; empty: none lies beside it or above it."""
    folder = snapshot.parent.parent if snapshot.parent.name == "snapshots" else snapshot.parent
    found: dict[str, Any] = {}
    for name in ("plan.json", "run.json"):
        try:
            record = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            found |= {key: record[key] for key in _RECORDED if key in record}
    return found
