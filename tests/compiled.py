"""What nvcc makes of the CUDA sources: registers, stack, shared memory and the occupancy that they allow."""

import importlib.util
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import emulated
import pytest

ARCHITECTURES = ("sm_80", "sm_90")
# As CMakeLists.txt has them.
FLAGS = (
    *("-std=c++17", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr", "--extended-lambda", "-lineinfo"),
    *("-Xcompiler=-fPIC", f"-I{emulated.ROOT / 'csrc'}"),
    *("-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90"),
    "-gencode=arch=compute_90,code=compute_90",
)
# Of one multiprocessor, in bytes.
SHARED_MEMORY = {"sm_80": 164 << 10, "sm_90": 228 << 10}
SHARED_MEMORY_OF_SYSTEM = 1 << 10
"""Taken from every block."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One compiled instantiation."""

    op: str
    arch: str
    name: str
    """Mangled, with the host compiler's name of unnamed namespaces."""
    registers: int
    stack_bytes: int
    local_bytes: int
    static_shared_bytes: int
    max_threads: int
    """Of a block, from `__launch_bounds__`."""

    def occupancy(self, threads: int, dynamic_shared_bytes: int) -> float:
        """Return the share of a multiprocessor's 2048 threads that can be resident (CUDA's occupancy calculator)."""
        warps = -(-threads // 32)
        registers_of_warp = -(-max(self.registers, 1) * 32 // 256) * 256
        # Four schedulers, each with a quarter of the registers.
        by_registers = 65536 // registers_of_warp // 4 * 4 // warps
        shared = -(-(self.static_shared_bytes + dynamic_shared_bytes + SHARED_MEMORY_OF_SYSTEM) // 128) * 128
        blocks = min(by_registers, SHARED_MEMORY[self.arch] // shared, 2048 // (warps * 32), 32)
        return blocks * warps * 32 / 2048


def nvcc() -> str:
    """Return the path of nvcc; skip the test without one."""
    path = shutil.which("nvcc") or shutil.which("nvcc", path=f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin")
    if path is None:
        pytest.skip("nvcc is not installed")
    return path


def cuobjdump() -> str:
    """Return the path of cuobjdump, from the toolkit or from triton's package; skip the test without one."""
    folders = [os.environ.get("PATH", ""), str(Path(nvcc()).resolve().parent)]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.submodule_search_locations:
        folders.append(f"{triton.submodule_search_locations[0]}/backends/nvidia/bin")
    path = shutil.which("cuobjdump", path=os.pathsep.join(folders))
    if path is None:
        pytest.skip("cuobjdump is neither in the CUDA toolkit nor in triton's package")
    return path


def sources() -> list[Path]:
    """Return the CUDA sources that CMakeLists.txt lists."""
    listed = re.search(r"set\(PYGAN_OPS ([^)]*)\)", (emulated.ROOT / "CMakeLists.txt").read_text())
    assert listed is not None
    return [emulated.ROOT / "csrc" / op / f"{op}_cuda.cu" for op in listed[1].split()]


@dataclass(frozen=True, kw_only=True)
class BuildTime:
    """What a build took. On a busy machine `cpu_seconds / jobs` tells what it would take on an idle one."""

    jobs: int
    seconds: float
    cpu_seconds: float


def compile_all(folder: Path, jobs: int = 2) -> tuple[list[Path], BuildTime]:
    """Compile the sources for both architectures and PTX; return the object files and the time it took."""
    compiler = nvcc()

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        done = subprocess.run([compiler, *FLAGS, "-c", str(source), "-o", str(target)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return target

    begin, cpu_begin = time.perf_counter(), _cpu_seconds_of_children()
    with ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(compile_one, sources()))
    seconds, cpu_seconds = time.perf_counter() - begin, _cpu_seconds_of_children() - cpu_begin
    return objects, BuildTime(jobs=jobs, seconds=round(seconds, 1), cpu_seconds=round(cpu_seconds, 1))


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kernels(objects: list[Path]) -> Iterator[Kernel]:
    """Read the resources of every kernel in compiled object files."""
    for path in objects:
        for arch in ARCHITECTURES:
            usage, elf = (_dump(option, arch, path) for option in ("-res-usage", "-elf"))
            bounds = _launch_bounds(elf)
            for symbol, line in re.findall(r"Function (\S+):\n(.*)", usage):
                values = {key: int(value) for key, value in re.findall(r"(\w+)(?:\[\d+\])?:(\d+)", line)}
                # For sm_90 cuobjdump counts the system's share, though not in files without any shared memory.
                of_system = min(values["SHARED"], SHARED_MEMORY_OF_SYSTEM) if arch == "sm_90" else 0
                yield Kernel(
                    op=path.stem.removesuffix("_cuda"),
                    arch=arch,
                    name=_host_name(symbol),
                    registers=values["REG"],
                    stack_bytes=values["STACK"],
                    local_bytes=values["LOCAL"],
                    static_shared_bytes=values["SHARED"] - of_system,
                    max_threads=bounds[symbol],
                )


def _dump(option: str, arch: str, path: Path) -> str:
    command = [cuobjdump(), option, "-arch", arch, str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _launch_bounds(elf: str) -> dict[str, int]:
    """Return the largest block of each kernel; 1024 where `__launch_bounds__` is missing."""
    bounds = {}
    for section in re.split(r"^\.nv\.info\.", elf, flags=re.MULTILINE)[1:]:
        symbol = section.split(maxsplit=1)[0]
        value = re.search(r"EIATTR_MAX_THREADS\s+Format:\s+EIFMT_SVAL\s+Value:\s+(\S+) (\S+) (\S+)", section)
        x, y, z = (int(number, 16) for number in value.groups()) if value else (1024, 1, 1)
        bounds[symbol] = x * y * z
    return bounds


def _host_name(symbol: str) -> str:
    """Return the symbol with nvcc's name of unnamed namespaces, which holds a hash, replaced by the host compiler's."""
    match = re.search(r"(\d+)_GLOBAL__N_", symbol)
    if match is None:
        return symbol
    end = match.end(1) + int(match[1])
    return f"{symbol[: match.start()]}12_GLOBAL__N_1{symbol[end:]}"
