"""Builds what runs the CUDA sources on the CPU, once per change of the sources, and runs the programs among it.

The library `pygan_simt` holds the kernels as operators of torch; the programs of `tests/csrc/CMakeLists.txt` launch
them without torch, under sanitizers or counters.
"""

import fcntl
import functools
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "simt"
PROGRAMS = BUILD / "tests" / "csrc"


def _tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def build(*targets: str) -> None:
    """Build targets of `tests/csrc/CMakeLists.txt`; a second process waits for the first."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.submodule_search_locations
    BUILD.mkdir(parents=True, exist_ok=True)
    configure = [
        *(_tool("cmake"), "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DPYGAN_SIMT=ON", "-DPYGAN_CUDA=OFF"),
        *(f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-DPYGAN_TORCH_DIR={spec.submodule_search_locations[0]}",
    ]
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, [_tool("cmake"), "--build", str(BUILD), "--target", *targets]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def library() -> str:
    """Return the path of the emulated library, built if need be."""
    build("pygan_simt")
    return str(PROGRAMS / "libpygan_simt.so")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that was built, with stdout and stderr in one text; sanitizers end it at their first report."""
    environment = {
        **os.environ,
        "TSAN_OPTIONS": "halt_on_error=1",
        "ASAN_OPTIONS": "detect_leaks=0",  # the emulator keeps its stacks until the end
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [str(PROGRAMS / program), *arguments]
    done = _output_of(command, environment)
    if "unexpected memory mapping" in done.stdout:  # ThreadSanitizer under a kernel that scatters addresses widely
        done = _output_of([_tool("setarch"), platform.machine(), "-R", *command], environment)
    return done


def _output_of(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A launch of a kernel as the trace saw it."""

    kernel: str
    """Its mangled name, as the host compiler has it."""
    threads: int
    dynamic_shared_bytes: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one case asked of memory and of the arithmetic units; the fields are explained in memory_trace.h."""

    case: str
    input_bytes: int
    output_bytes: int
    allowed_bytes: int
    read_sectors: int
    written_sectors: int
    ideal_sectors: int
    block_sectors: int
    wavefronts: int
    ideal_wavefronts: int
    flops: int
    """Additions, multiplications, divisions and roots that were executed; a fused multiply-add is two."""
    launches: tuple[Launch, ...]


def traces(scale: str) -> Iterator[Trace]:
    """Run the cases of a scale, "small" or "large", one after another under the memory trace."""
    build("cases_trace")
    program = PROGRAMS / "cases_trace"
    names = _kernel_names(program)
    flops = _flops_of_stretches(program)
    done = subprocess.run([str(program), scale], stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        record = json.loads(line)
        launches = [{**launch, "kernel": names[int(launch["kernel"], 16)]} for launch in record.pop("launches")]
        runs = record.pop("stretches").items()
        total = sum(count * flops.get(int(address, 16), 0) for address, count in runs)
        yield Trace(**record, flops=total, launches=tuple(Launch(**launch) for launch in launches))


def _kernel_names(program: Path) -> dict[int, str]:
    """Return the mangled names of the program's functions by address."""
    listing = subprocess.run([_tool("nm"), str(program)], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = (line.split() for line in listing.splitlines())
    return {int(row[0], 16): row[2] for row in rows if len(row) == 3 and row[1] in "tTwW"}


def _flops_of_stretches(program: Path) -> dict[int, int]:
    """Return the operations from each return address of the coverage function to its next call.

    The compiler puts such a call at the start of every basic block, so what follows runs as often as it.
    """
    command = [_tool("objdump"), "-d", "--no-show-raw-insn", str(program)]
    disassembly = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(_stretches(disassembly.splitlines()))


_INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t(\w+)(.*)")
_ARITHMETIC = re.compile(r"^v?(?:add|sub|mul|div|sqrt|(fn?m(?:add|sub)\d+))([sp])([sd])$")


def _stretches(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    start, total, counts_next = None, 0, False
    for line in lines:
        match = _INSTRUCTION.match(line)
        if match is None:
            if line.endswith(">:") and start is not None:  # the next function
                yield start, total
                start = None
            continue
        address, mnemonic, operands = int(match[1], 16), match[2], match[3]
        if counts_next:
            if start is not None:
                yield start, total
            start, total, counts_next = address, 0, False
        counts_next = mnemonic.startswith("call") and "<__sanitizer_cov_trace_pc>" in operands
        total += _operations(mnemonic, operands)
    if start is not None:
        yield start, total


def _operations(mnemonic: str, operands: str) -> int:
    """Return the floating point operations of one x86 instruction."""
    match = _ARITHMETIC.match(mnemonic)
    if match is None:
        return 0
    fused, packed, double = match[1] is not None, match[2] == "p", match[3] == "d"
    register_bytes = 32 if "%ymm" in operands else 16
    lanes = register_bytes // (8 if double else 4) if packed else 1
    return lanes * (2 if fused else 1)
