"""The runner of the stages: `python -m pipeline.<stage> --spec JSON --input name=path ... --out FOLDER`.

A stage file imports `run_stage` before anything heavy, because importing this module sets the allocator, which has to
happen before torch allocates: transparent huge pages, and large blocks kept by the process instead of being returned
to the kernel and faulted in again at every operation. Settings of the user's environment are kept.

A job works in `work/<stage>/<fingerprint>/` and publishes its files when all of them are there, so no half-written
file appears under its final name. The fingerprint covers the spec and the content of every input: new code or another
configuration is a new folder, the same fingerprint resumes an interrupted job (what it keeps in `state/` beside its
`out/`) and a finished one is published again at once.
"""

import argparse
import errno
import gc
import hashlib
import importlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import granted, provenance
from pygan.allocator import set_allocator
from pygan.errors import CannotWrite, ConfigError, DataError, MissingInput, PyganError, Stopped, TryAgain
from pygan.gpu_claims import is_launched, take
from pygan.lock import held

Stage = Callable[..., None]
"""`main(spec: dict, *, inputs: dict[str, list[Path]], out: Path) -> None`"""

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
_NAMES = {"code": "code", "csrc": "native source", "raw": "raw data"}


set_allocator()
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")


def run_stage(main: Stage, argv: list[str] | None = None) -> None:
    """Run a stage as a program and end the process with its exit code.

    A `PyganError` becomes its one sentence on stderr and its exit code, a disk that is full or closed to us exit code
    73; any other exception is a bug and shows its traceback (exit code 1).
    """
    arguments = _parse(argv)
    _log_to_stderr()
    try:
        _run(main, arguments)
        gc.freeze()  # the end of the process looks for garbage, too
    except Stopped as answer:  # what was asked for is no error
        print(answer, file=sys.stderr, flush=True)
        sys.exit(answer.exit_code)
    except PyganError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        where = error.filename or arguments.out
        _fail(f"{where}: {os.strerror(error.errno)} ({_free_space(arguments.work)} free)", CannotWrite.exit_code)


def _log_to_stderr() -> None:
    """Show what the library tells, for example where a training continues; of other packages, warnings alone."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pygan").setLevel(logging.INFO)


def _fail(sentence: str, code: int) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)


def _free_space(folder: Path) -> str:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    program = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{program}", description="Run one stage of the study.")
    parser.add_argument("--spec", required=True, help="canonical JSON of the job, as `snakemake -p` prints it")
    parser.add_argument(
        "--input",
        action="append",
        nargs="+",
        default=[],
        metavar=("NAME=PATH", "PATH"),
        help="input files of one name; repeatable; `NAME=` alone means none",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder that receives the finished files")
    work = Path(os.environ.get("PYGAN_WORK", "work"))
    parser.add_argument(
        "--work", type=Path, default=work, help="folder of resumable state (default: $PYGAN_WORK or work)"
    )
    parser.add_argument(
        "--gpus", type=int, default=0, help="GPUs that the stage takes of the visible ones (default: 0)"
    )
    parser.add_argument("--processes", type=int, default=1, help="processes of a training, each with a GPU of its own")
    arguments = parser.parse_args(argv)
    arguments.given = sys.argv[1:] if argv is None else argv
    arguments.inputs = _inputs(parser, arguments.input)
    return arguments


def _inputs(parser: argparse.ArgumentParser, groups: list[list[str]]) -> dict[str, list[Path]]:
    inputs: dict[str, list[Path]] = {}
    for first, *others in groups:
        name, equals, path = first.partition("=")
        if not equals:
            parser.error(f"--input: got {first!r}, expected NAME=PATH")
        inputs.setdefault(name, []).extend(Path(p) for p in (path, *others) if p)
    return {name: paths for name, paths in inputs.items() if paths}


def _run(main: Stage, arguments: argparse.Namespace) -> None:
    spec = _spec(arguments.spec)
    for path in (path for paths in arguments.inputs.values() for path in paths):
        if not path.exists():
            raise MissingInput(f"{path}: the input is not there; `snakemake --cores all reproduce` makes it")
    device = take(arguments.gpus, arguments.processes)
    granted.launch(arguments.processes, arguments.given)
    backend = _prepare_ops() if "csrc" in spec else None
    _set_threads(spec.get("threads", 1))
    _check_writable(arguments.out)

    name = fingerprint(spec, arguments.inputs, backend=backend, device=device["type"])
    spec["device"] = device
    if is_launched() and int(os.environ["RANK"]) > 0:
        _help(main, spec, arguments, name)
        return
    label = f"{spec['stage']} {name}"
    start = time.monotonic()
    with held(arguments.work / spec["stage"] / name) as folder:
        if not _is_done(folder):
            print(f"{label}: start in {folder}", flush=True)
            out = _clean_out(folder)
            main(spec, inputs=arguments.inputs, out=out)
            _write_done(folder, name)
            print(f"{label}: done in {time.monotonic() - start:.1f} s", flush=True)
        else:
            print(f"{label}: finished before, nothing to compute", flush=True)
        _publish(folder, arguments.out)


def _help(main: Stage, spec: dict[str, Any], arguments: argparse.Namespace, name: str) -> None:
    """Take part in a stage as one of torchrun's further processes; the first one holds the folder and publishes."""
    folder = arguments.work / spec["stage"] / name
    if not (folder / "done.json").exists():
        main(spec, inputs=arguments.inputs, out=folder / "out")


def _spec(text: str) -> dict[str, Any]:
    """The parsed spec, with the digests of this tree where it carries none.

    Raises:
        ConfigError: not a JSON object with "stage" and "config".
        TryAgain: it was made from another state of the source tree, so its result would get a wrong name.
    """
    try:
        spec = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--spec: not JSON ({error})") from error
    if not isinstance(spec, dict) or not {"stage", "config"} <= spec.keys():
        raise ConfigError('--spec: expected a JSON object with "stage" and "config"')
    digests = provenance.digests(spec["stage"], spec["config"])
    if "raw" in spec:
        digests["raw"] = provenance.raw_digest(spec["config"]["source"])
    for key, digest in digests.items():
        if spec.setdefault(key, digest) != digest:
            raise TryAgain(f"stage {spec['stage']}: its {_NAMES[key]} changed after this job was planned: run it again")
    return spec


def _prepare_ops() -> str:
    """Check the compiled kernels against the source and return the backend in use.

    The package is imported by name, so that only stages whose own code reaches it depend on it.
    """
    gc.disable()  # what torch brings stays to the end: looking through it for garbage takes a second
    ops = importlib.import_module("pygan.ops")
    gc.freeze()
    gc.enable()
    ops.check_build(provenance.ROOT)
    return ops.backend()


def _set_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def fingerprint(spec: dict[str, Any], inputs: dict[str, list[Path]], **settings: Any) -> str:
    """Return the name of a job's work folder: the spec, the content of its inputs in order, and `settings`.

    An LMDB store counts by its size alone: its content stands in the manifest, which is an input beside it. A folder
    counts with the files in it.
    """
    contents = {name: list(map(_content, paths)) for name, paths in inputs.items()}
    text = provenance.canonical({"spec": spec, "inputs": contents, "settings": settings})
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _content(path: Path) -> Any:
    if path.is_dir():
        return {str(file.relative_to(path)): _sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return path.stat().st_size if path.suffix == ".lmdb" else _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_writable(folder: Path) -> None:
    """Fail before any computation where the results could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".tmp-{os.getpid()}"
    probe.touch()
    probe.unlink()


def _clean_out(folder: Path) -> Path:
    """The folder the stage writes to: as it was left where there is state to resume, else empty."""
    out = folder / "out"
    if not (folder / "state").exists():
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(exist_ok=True)
    for leftover in out.rglob("*.tmp-*"):
        leftover.unlink()
    return out


def _files(out: Path) -> list[Path]:
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


def _write_done(folder: Path, name: str) -> None:
    out = folder / "out"
    files = {str(path): _sha256(out / path) for path in _files(out)}
    _write(folder / "done.json", json.dumps({"fingerprint": name, "files": files}, indent=1).encode())


def _is_done(folder: Path) -> bool:
    """True where a finished job lies in `folder` with every file as it was written."""
    record = folder / "done.json"
    if not record.exists():
        return False
    try:
        files = json.loads(record.read_bytes())["files"]
        intact = all(_sha256(folder / "out" / path) == digest for path, digest in files.items())
    except (ValueError, KeyError, FileNotFoundError):
        intact = False
    if not intact:
        print(f"{folder}: finished files are damaged, computing them again", file=sys.stderr, flush=True)
        record.unlink()
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.rmtree(folder / "state", ignore_errors=True)
    return intact


def _publish(folder: Path, target: Path) -> None:
    """Copy every file of a finished job to its final name, each one whole or not at all."""
    files = _files(folder / "out")
    if not files:
        raise DataError(f"{folder}: the stage wrote no file")
    for path in files:
        final = target / path
        final.parent.mkdir(parents=True, exist_ok=True)
        _write(final, (folder / "out" / path).open("rb"))


def _write(path: Path, content: Any) -> None:
    """Write bytes or an open file to `path` by way of a temporary file beside it."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with content:
                    shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
