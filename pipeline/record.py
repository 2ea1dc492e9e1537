"""Provenance that every record carries: what it was computed with, the revision, and the digests of the job."""

import subprocess
from typing import Any

from pipeline.granted import device_of


def record(spec: dict[str, Any]) -> dict[str, Any]:
    """Return versions, device, threads, op backend, revision and the digests of the stage's `spec`."""
    from pygan.environment import environment

    return environment(device_of(spec), spec.get("device", {}).get("why")) | {
        "git": _revision(),
        "digests": {key: spec.get(key) for key in ("code", "csrc", "raw")},
    }


def _revision() -> str | None:
    """Return the git revision of the working tree, with `-dirty` after uncommitted edits; None outside a clone."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
