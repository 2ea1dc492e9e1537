"""pygan: training image generators on little data."""

from importlib import import_module
from sys import platform
from typing import Any

if platform == "win32":
    raise ImportError(
        "pygan runs on Linux, not on Windows itself: install Linux inside Windows with WSL "
        "(Windows Subsystem for Linux) and install pygan there"
    )

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Bring `pygan.load` on first use: who reads a report imports no torch, and no stage depends on sampling."""
    if name == "load":
        return import_module("pygan.sampling").load
    raise AttributeError(f"module 'pygan' has no attribute {name!r}")
