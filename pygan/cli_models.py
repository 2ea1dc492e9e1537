"""The verbs that use a trained model: `generate`, `grid`, `interpolate`, `export` and `inspect`."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from torch import Tensor

_Snapshot = Annotated[
    Path,
    typer.Argument(
        help="A snapshot, or the folder of a training, which stands for the snapshot that it selected, else for its "
        "newest one."
    ),
]
_Seed = Annotated[
    int, typer.Option(help="Picture i depends on the seed and i alone, up to rounding on another device.")
]
_Label = Annotated[
    str | None,
    typer.Option(help="Class of all pictures, by name or number; without it classes are drawn uniformly."),
]
_Truncation = Annotated[
    float, typer.Option(help="With 1 nothing is truncated; smaller values give less variety and more typical pictures.")
]
_Steps = Annotated[
    int | None,
    typer.Option(min=2, help="Noise levels of a diffusion model's sampler; without it the configured number."),
]
_Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda or cuda:N; without it the first GPU is used where there is one, else the CPU."),
]


def add_to(app: typer.Typer, spoken: Callable[[Callable[..., None]], Callable[..., Any]]) -> None:
    """Add the verbs; `spoken` turns errors into sentences and exit codes."""
    for name, verb in {
        "generate": _generate,
        "grid": _grid,
        "interpolate": _interpolate,
        "export": _export,
        "inspect": _inspect,
    }.items():
        app.command(name)(spoken(verb))


def _shown(batches: Iterable["Tensor"], total: int, unit: str) -> Iterator["Tensor"]:
    """Yield the batches and show on stderr, where that is a terminal, how many pictures are done."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, disable=None) as bar:
        for img in batches:
            yield img
            bar.update(len(img))


def _generate(
    model: _Snapshot,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("generated"),
    n: Annotated[int, typer.Option("-n", min=1, help="Number of pictures.")] = 16,
    seed: _Seed = 0,
    label: _Label = None,
    truncation: _Truncation = 1.0,
    steps: _Steps = None,
    device: _Device = None,
) -> None:
    """Write generated pictures into a folder.

    The pictures are PNG files, numbered from 0. The file generated.json beside them records snapshot, seed and
    settings. A folder with any other files is refused, and so is a folder with pictures of other settings.
    """
    from pygan import generated, load
    from pygan.sampling import check_out

    generated.check_folder(out)
    loaded = load(model, device)
    check_out(out / loaded.path.name, loaded.path)
    settings = {"seed": seed, "label": label, "truncation": truncation, "steps": steps}
    batches = loaded.samples(n, **settings)
    generated.write(out, generated.describe(loaded, n, **settings), _shown(batches, n, "picture"))
    typer.echo(f"{out}: {n} pictures")


def _grid(
    model: _Snapshot,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Pictures from top to bottom.")] = 8,
    columns: Annotated[int, typer.Option(min=1, help="Pictures from left to right.")] = 8,
    seed: _Seed = 0,
    label: _Label = None,
    truncation: _Truncation = 1.0,
    steps: _Steps = None,
    device: _Device = None,
) -> None:
    """Write generated pictures side by side as one PNG.

    The pictures are enlarged twice where the sheet stays below 179 million pixels, the most that Pillow opens. A sheet
    that is larger than that without enlargement is refused.
    """
    from pygan import load
    from pygan.sampling import check_out
    from pygan.sheets import check_png, save_sheet, sheet_scale

    check_png(out)
    loaded = load(model, device)
    check_out(out, loaded.path)
    scale = sheet_scale(loaded.resolution, rows, columns)
    n = rows * columns
    batches = loaded.samples(n, seed=seed, label=label, truncation=truncation, steps=steps)
    save_sheet(out, _shown(batches, n, "picture"), rows, columns, scale)
    typer.echo(f"{out}: {rows} x {columns} pictures")


def _interpolate(
    model: _Snapshot,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .gif, .webp or .mp4.")],
    seeds: Annotated[str, typer.Option(help="Seeds of the pictures to pass through, with commas.")] = "0,1,2,3",
    frames: Annotated[int, typer.Option(min=1, help="Frames from one picture to the next.")] = 30,
    fps: Annotated[int, typer.Option(min=1, max=100, help="Frames per second.")] = 15,
    label: Annotated[
        str | None, typer.Option(help="Class of all frames, by name or number; without it the first class.")
    ] = None,
    truncation: _Truncation = 1.0,
    device: _Device = None,
) -> None:
    """Write a closed walk between pictures as an animation."""
    from pygan import load
    from pygan.animation import check_suffix, save_animation
    from pygan.sampling import check_out

    check_suffix(out)
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise typer.BadParameter(f"got {seeds!r}, expected whole numbers separated by commas") from None
    total = len(numbers) * frames
    loaded = load(model, device)
    check_out(out, loaded.path)
    batches = loaded.walk(numbers, frames, label=label, truncation=truncation)
    save_animation(out, _shown(batches, total, "frame"), total, fps)
    typer.echo(f"{out}: {total} frames")


def _export(
    model: _Snapshot,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="File to write; .safetensors, .onnx, .pt or .torchscript chooses the format.",
        ),
    ],
    format: Annotated[
        Literal["safetensors", "sparse", "onnx", "torchscript"] | None,
        typer.Option(
            metavar="FORMAT",
            help="safetensors, sparse (safetensors without pruned weights), onnx or torchscript; needed for sparse "
            "alone.",
        ),
    ] = None,
    device: _Device = None,
) -> None:
    """Write the averaged generator for other programs.

    The file is read back and compared with the model before it is kept.
    """
    from pygan import load
    from pygan.export import export, format_of

    chosen = format_of(out, format)
    checked = export(load(model, device), out, chosen)
    typer.echo(f"{out}: read back by {checked.reader}, pictures differ by at most {checked.difference:.2g} of [-1, 1]")


def _inspect(
    model: _Snapshot,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Print what a snapshot holds.

    The lines name picture size, classes, images seen, parameters, base network and, where the training recorded them,
    recipe and methods.
    """
    from pygan import load
    from pygan.snapshot_facts import facts, text

    found = facts(load(model, "cpu"))
    typer.echo(json.dumps(found, indent=1) if as_json else text(found))
