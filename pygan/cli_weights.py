"""The verbs `pygan weights fetch` and `pygan weights verify`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

_Files = Annotated[
    list[str] | None, typer.Argument(help="File names, or timm/<model>.safetensors; default: list what there is.")
]


def add_to(app: typer.Typer, spoken: Callable[[Callable[..., None]], Callable[..., Any]]) -> None:
    """Add the verbs; `spoken` turns errors into sentences and exit codes."""
    verbs = typer.Typer(no_args_is_help=True, help="Pretrained weights that no package carries.")
    verbs.command("fetch")(spoken(_fetch))
    verbs.command("verify")(spoken(_verify))
    app.add_typer(verbs, name="weights")


def _fetch(files: _Files = None) -> None:
    """Download weight files into $PYGAN_WEIGHTS and pin the sha256 of those that have no published one."""
    from pygan import weights

    if not files:
        for entry in weights.status():
            typer.echo(f"{entry['state']:8} {entry['file']:50} {entry['what']}; {entry['license']}")
        return
    for file, digest in weights.fetch(files).items():
        typer.echo(f"{weights.folder() / file}: sha256 {digest}")


def _verify() -> None:
    """Compare the sha256 of the weight files that are there with the published or pinned one."""
    from pygan import weights

    checked = weights.verify()
    for file, known in checked:
        typer.echo(f"{file}: {'unchanged' if known else 'no sha256 is known, `pygan weights fetch` pins it'}")
    typer.echo(f"{len(checked)} files in {weights.folder()}")
