"""The verbs `pygan weights fetch` and `pygan weights verify`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

_Files = Annotated[
    list[str] | None, typer.Argument(help="File names, or timm/MODEL.safetensors; without them the files are listed.")
]


def add_to(app: typer.Typer, spoken: Callable[[Callable[..., None]], Callable[..., Any]]) -> None:
    """Add the verbs; `spoken` turns errors into sentences and exit codes."""
    verbs = typer.Typer(no_args_is_help=True, help="Pretrained weights that no package carries.")
    verbs.command("fetch")(spoken(_fetch))
    verbs.command("verify")(spoken(_verify))
    app.add_typer(verbs, name="weights")


def _fetch(files: _Files = None) -> None:
    """Download weight files, or list them.

    They go into $PYGAN_WEIGHTS, else into pygan/weights in the user's cache folder. Where no sha256 is published, that
    of the first download is pinned.
    """
    from pygan import weights

    if not files:
        for entry in weights.status():
            size = "? MiB" if entry["mib"] is None else f"{entry['mib']:.0f} MiB"
            known = "" if entry["expected"] else "; its sha256 is not known"
            typer.echo(f"{entry['state']:8} {size:>8} {entry['file']:50} {entry['what']}; {entry['license']}{known}")
        return
    for file, digest in weights.fetch(files).items():
        typer.echo(f"{weights.folder() / file}: sha256 {digest}")


def _verify() -> None:
    """Compare the weight files with their sha256.

    The sha256 is the published one, or that of the first download.
    """
    from pygan import weights

    checked = weights.verify()
    for file, known in checked:
        typer.echo(f"{file}: {'unchanged' if known else 'no sha256 is known, `pygan weights fetch` pins it'}")
    typer.echo(f"{len(checked)} files in {weights.folder()}")
