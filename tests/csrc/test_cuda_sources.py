"""The CUDA sources, executed on the CPU by the emulator in `simt/` and compiled by nvcc where there is one."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compiled
import emulated
import pytest

CSRC = emulated.ROOT / "csrc"

# Mutants that nothing catches, "op/file.cu:n" for the n-th barrier of the file, and why that is no fault of the tests.
EQUIVALENT_MUTANTS: dict[str, str] = {}

# Kernels that may keep bytes on the stack, by a part of the mangled name, and why.
ALLOWED_STACK_BYTES: dict[str, tuple[int, str]] = {}


def included_files(source: Path) -> Iterator[tuple[Path, str]]:
    """Yield what a source includes, directly or through our own headers, with the file that does it."""
    pending, seen = [source], {source}
    while pending:
        path = pending.pop()
        for name in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE):
            yield path, name
            header = CSRC / name
            if header.is_file() and header not in seen:
                seen.add(header)
                pending.append(header)


def test_cuda_sources_include_no_torch() -> None:
    assert compiled.sources()
    for source in compiled.sources():
        for path, name in included_files(source):
            assert not re.match(r"(torch|ATen|c10|caffe2|pybind11|Python\.h)\b", name), f"{path} includes {name}"


def test_launch_bounds_name_threads_and_blocks() -> None:
    """With the threads alone ptxas aims at so many blocks that it may spill registers."""
    for source in compiled.sources():
        text = source.read_text()
        bounds = re.findall(r"__launch_bounds__\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text)
        assert len(bounds) == len(re.findall(r"\b__global__\b", text)), f"{source}: a kernel lacks __launch_bounds__"
        assert all("," in arguments for arguments in bounds), f"{source}: __launch_bounds__ needs both numbers"


def test_cases_under_several_schedules() -> None:
    """Right results, and the same bits, whatever the order of threads and blocks."""
    emulated.build("cases_fibers")
    done = emulated.run("cases_fibers", "--schedules", "4")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tsan", "asan"])
def test_cases_under_a_sanitizer(kind: str) -> None:
    emulated.build(f"cases_{kind}")
    done = emulated.run(f"cases_{kind}", "--schedules", "1")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fibers", "tsan", "asan"])
def test_emulator(kind: str) -> None:
    emulated.build(f"test_emulator_{kind}")
    done = emulated.run(f"test_emulator_{kind}")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kernel", "report"),
    [
        ("tsan", "race", "data race"),
        ("asan", "overrun", "heap-buffer-overflow"),
        ("asan", "shared overrun", "heap-buffer-overflow"),
        ("asan", "static shared overrun", "out of bounds"),
        ("asan", "misaligned", "misaligned address"),
    ],
)
def test_sanitizers_notice_broken_kernels(kind: str, kernel: str, report: str) -> None:
    emulated.build(f"test_emulator_{kind}")
    done = emulated.run(f"test_emulator_{kind}", kernel)
    assert done.returncode != 0 and report in done.stdout, done.stdout


def barriers() -> Iterator[tuple[str, Path, int]]:
    """Yield the name of each mutant, its file and line."""
    for path in sorted(p for p in CSRC.rglob("*") if p.suffix in (".cu", ".cuh")):
        lines = path.read_text().splitlines()
        found = [(i, line) for i, line in enumerate(lines, 1) if re.search(r"\b__sync(threads|warp)\w*\(", line)]
        for n, (number, line) in enumerate(found, 1):
            assert line.count("__sync") == 1, f"{path}:{number}: one barrier a line, as mutants are named by lines"
            yield f"{path.relative_to(CSRC)}:{n}", path, number


def survives(mutant: tuple[str, Path, int]) -> str | None:
    """Run a mutant under four schedules, then under the race detector; return why it counts as not caught."""
    name, path, line = mutant
    arguments = ["--skip", f"{path.relative_to(CSRC)}:{line}"]
    if path.parent.name != "common":
        arguments += ["--only", path.parent.name]
    done = emulated.run("cases_fibers", "--schedules", "4", *arguments)
    if done.returncode == 2:
        return f"{name} (line {line}): no case reaches it"
    if done.returncode == 0:
        done = emulated.run("cases_tsan", "--schedules", "1", *arguments)
    return f"{name} (line {line}): every case still passes" if done.returncode == 0 else None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_barrier_is_needed() -> None:
    """Without any one of them a result is wrong or differs between schedules, threads hang, or race."""
    emulated.build("cases_fibers", "cases_tsan")
    mutants = list(barriers())
    assert set(EQUIVALENT_MUTANTS) <= {name for name, _, _ in mutants}
    with ThreadPoolExecutor(2) as pool:
        survivors = [text for text in pool.map(survives, mutants) if text is not None]
    survivors = [text for text in survivors if text.split()[0] not in EQUIVALENT_MUTANTS]
    assert not survivors, "\n".join(survivors)


@pytest.fixture(scope="module")
def large_traces() -> list[emulated.Trace]:
    return list(emulated.traces("large"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_global_accesses_are_coalesced(large_traces: list[emulated.Trace]) -> None:
    """The lanes of a warp share the sectors they ask for; the allowance is for vectors that stay in the cache."""
    wasteful = []
    for trace in large_traces:
        sectors, needed = trace.read_sectors + trace.written_sectors, trace.ideal_sectors + trace.allowed_bytes / 32
        if sectors > 1.3 * needed:
            wasteful.append(f"{trace.case}: {sectors / needed:.2f} times the sectors that its requests need")
    assert not wasteful, "\n".join(wasteful)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_global_memory_is_moved_once(large_traces: list[emulated.Trace]) -> None:
    """Each tensor goes once over the bus, as far as one block's cache can see to it, and halos beside it."""
    wasteful = []
    for trace in large_traces:
        moved, once = 32 * trace.block_sectors, trace.input_bytes + trace.output_bytes + trace.allowed_bytes
        if moved > 1.3 * once:
            wasteful.append(f"{trace.case}: {moved / once:.2f} times the bytes of its tensors and allowances")
    assert not wasteful, "\n".join(wasteful)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_layouts_are_traced(large_traces: list[emulated.Trace]) -> None:
    names = [trace.case for trace in large_traces]
    for layout in ("contiguous", "channels_last"):
        assert any(layout in name for name in names), names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shared_memory_is_free_of_bank_conflicts(large_traces: list[emulated.Trace]) -> None:
    for trace in large_traces:
        assert trace.wavefronts <= 1.1 * trace.ideal_wavefronts, (
            f"{trace.case}: {trace.wavefronts} wavefronts, {trace.ideal_wavefronts} without conflicts"
        )


@pytest.fixture(scope="module")
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> list[compiled.Kernel]:
    compiled.cuobjdump()
    objects, _ = compiled.compile_all(tmp_path_factory.mktemp("nvcc"))
    return list(compiled.kernels(objects))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_spills(compiled_kernels: list[compiled.Kernel]) -> None:
    for kernel in compiled_kernels:
        allowed = sum(bytes_ for part, (bytes_, _) in ALLOWED_STACK_BYTES.items() if part in kernel.name)
        assert max(kernel.stack_bytes, kernel.local_bytes) <= allowed, kernel


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_occupancy_and_launch_bounds(compiled_kernels: list[compiled.Kernel]) -> None:
    """At least half of a multiprocessor's threads are resident, and no launch exceeds what its kernel was built for."""
    launches = [launch for trace in emulated.traces("small") for launch in trace.launches]
    by_name = {kernel.name: kernel for kernel in compiled_kernels}
    assert {launch.kernel for launch in launches} <= set(by_name)
    for launch in launches:
        assert launch.threads <= by_name[launch.kernel].max_threads, launch
    for kernel in compiled_kernels:
        # An instantiation that no case launches is judged by the shared memory of its template's others.
        alike = {other.name for other in compiled_kernels if template(other) == template(kernel)}
        used = [(launch.kernel, launch.dynamic_shared_bytes) for launch in launches if launch.kernel in alike]
        own = [shared for name, shared in used if name == kernel.name]
        occupancy = kernel.occupancy(kernel.max_threads, max(own or [shared for _, shared in used], default=0))
        assert occupancy >= 0.5, f"{kernel}: {occupancy:.0%}"


def template(kernel: compiled.Kernel) -> tuple[str, str]:
    """Return what the instantiations of a kernel have in common."""
    return kernel.op, kernel.name.split("kernelI")[0]
