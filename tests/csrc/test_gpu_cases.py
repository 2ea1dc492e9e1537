"""The cases of the CUDA sources on a GPU, also under the tools of compute-sanitizer."""

import re
import shutil
import subprocess
from pathlib import Path

import compiled
import emulated
import pytest
import torch

CSRC = emulated.ROOT / "csrc"
CASES = emulated.ROOT / "tests" / "csrc"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on a GPU, and there is none"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of `gpu_cases.cpp`, compiled for the GPU at hand."""
    folder = tmp_path_factory.mktemp("gpu_cases")
    sources = compiled.sources()
    ops = [source.parent.name for source in sources]
    (folder / "cuda_ops.h").write_text(f"#define PYGAN_FOR_EACH_CUDA_OP(add) {' '.join(f'add({op})' for op in ops)}\n")
    sources += [CASES / name for name in ("gpu_cases.cpp", "cases.cpp", *(f"{op}_cases.cpp" for op in ops))]
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability())
    command = [compiled.nvcc(), "-std=c++20", "-O2", "-lineinfo", "--expt-relaxed-constexpr", "--extended-lambda"]
    command += [f"-arch={arch}", "--threads=0", "-DPYGAN_ON_GPU", f"-I{CSRC}", f"-I{CASES}", f"-I{folder}"]
    done = subprocess.run(
        [*command, *map(str, sources), "-o", str(folder / "cases_gpu")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "cases_gpu"


def test_cases(program: Path) -> None:
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_cases_under_compute_sanitizer(program: Path, tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=str(Path(compiled.nvcc()).resolve().parent)
    )
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    # Racecheck warns of group_kernel: nvcc reads the last rows of u by 16 bytes and ignores what lies behind them.
    command = [sanitizer, f"--tool={tool}", "--print-level=error", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    errors = re.search(r"SUMMARY: .*?(\d+) errors", done.stdout)
    assert done.returncode == 0 and errors is not None and errors[1] == "0", done.stdout + done.stderr
