"""Packages that pygan needs for some features only, and the one sentence that names those that are missing."""

import importlib
import importlib.util
import shlex
import sys
from types import ModuleType

from pygan.errors import ConfigError, MissingInput


def require_packages(needed_by: str, *modules: str) -> None:
    """Check that optional packages are installed, without importing them.

    Args:
        needed_by: the feature, as the subject of the error: "the format onnx".
        modules: import names of the packages.

    Raises:
        MissingInput: at least one is not installed; the message names all that are missing, and the command.
    """
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        what = f"the package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
        raise MissingInput(f"{needed_by} needs {what}: run `{install_command(*missing)}`")


def optional_module(name: str, needed_by: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        name: import name, with dots where it is a submodule.
        needed_by: the feature, as the subject of the error: "the network resnet".

    Raises:
        MissingInput: the package is not installed.
        ConfigError: it is installed but cannot be imported, for example beside another torch than it was built for.
    """
    package = name.partition(".")[0]
    require_packages(needed_by, package)
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name:  # what the package needs in turn
            require_packages(needed_by, error.name.partition(".")[0])
        raise ConfigError(f"{needed_by} needs the package {package}, whose import fails: {error}") from error


def install_command(*packages: str) -> str:
    """Return the command that installs packages into the environment of the running Python.

    The packages are named one by one: an extra such as `NAME[video]` would need pygan itself from the package index.
    """
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
