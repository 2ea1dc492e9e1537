"""Builds `pygan._C` by running CMake on CMakeLists.txt, the only list of native sources.

Where a compiler, CMake, Ninja or a suitable torch is missing, the package is built without the extension. It then runs
on the reference operators, and its first warning gives the reason, because pip hides what a build prints.
`PYGAN_OPS=native pip install .` refuses to build without the extension, and `PYGAN_OPS=reference` does not try to.
Everything else about the package is in pyproject.toml.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 13)  # as in CMakeLists.txt
FIND_TORCH = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"


def find_torch() -> Path | None:
    """Return the folder of the installed torch, also from inside pip's isolated build environment.

    Only headers and one library are needed, so torch is not a build requirement, which pip would install a second time.
    pip isolates through PYTHONPATH; an interpreter started without it sees the environment that pip was called from.
    """
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0])
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
    command = [sys.executable, "-c", FIND_TORCH]
    found = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()) if found.returncode == 0 else None


def why_not(torch_dir: Path | None) -> str | None:
    """Return what the extension cannot be built without and is missing, or None."""
    if os.environ.get("PYGAN_OPS") == "reference":
        return "PYGAN_OPS was reference during the build"
    if torch_dir is None:
        return "torch was not installed before it"
    if not (torch_dir / "lib" / "libtorch_cpu.so").is_file():
        return f"{torch_dir} has no lib/libtorch_cpu.so: the operators can be built on Linux only"
    version = re.search(r"__version__ = '(\d+)\.(\d+)[^']*'", (torch_dir / "version.py").read_text(encoding="utf-8"))
    if version is not None and tuple(map(int, version.groups())) < OLDEST_TORCH:
        return f"torch {version[1]}.{version[2]} was installed, but {'.'.join(map(str, OLDEST_TORCH))} is needed"
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, compilers)):
        return f"there was no C++ compiler ({', '.join(compilers)})"
    for tool in ("cmake", "ninja"):
        if not shutil.which(tool):
            return f"{tool} was not installed"
    return None


class CMakeBuild(build_ext):
    """Configures, builds and installs with CMake, which puts the extension where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"  # kept, so that a rebuild is incremental
        prefix = Path(self.get_ext_fullpath(ext.name)).resolve().parents[1]
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DPYGAN_TORCH_DIR={TORCH_DIR}",
            f"-DPYGAN_CUDA={os.environ.get('PYGAN_CUDA', 'AUTO')}",
        ]
        for command in (configure, ["cmake", "--build", str(build)], ["cmake", "--install", str(build)]):
            if subprocess.run(command, check=False).returncode != 0:
                raise CompileError(
                    f"the native operators cannot be built, `{' '.join(command[:2])}` failed as printed above; "
                    "PYGAN_OPS=reference builds pygan without them"
                )


class BuildPython(build_py):
    """Copies the modules and, where there is no extension, writes the reason for pygan/ops/extension.py to read."""

    def run(self) -> None:
        super().run()
        if REASON is not None and not self.editable_mode:
            Path(self.build_lib, "pygan", "ops", "not_built.txt").write_text(f"{REASON}\n")


TORCH_DIR = find_torch()
REASON = why_not(TORCH_DIR)
if REASON is not None and {"bdist_wheel", "editable_wheel"} & set(sys.argv):  # not each time metadata is asked for
    if os.environ.get("PYGAN_OPS") == "native":
        sys.exit(f"PYGAN_OPS=native, but the native operators cannot be built: {REASON}")
    print(f"pygan is built without its native operators: {REASON}", file=sys.stderr)

setup(
    ext_modules=[Extension("pygan._C", [])] if REASON is None else [],
    cmdclass={"build_ext": CMakeBuild, "build_py": BuildPython},
)
