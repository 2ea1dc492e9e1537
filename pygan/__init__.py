"""pygan: training image generators on little data."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Bring `pygan.load` on first use: who reads a report imports no torch, and no stage depends on sampling."""
    if name == "load":
        return import_module("pygan.sampling").load
    raise AttributeError(f"module 'pygan' has no attribute {name!r}")
