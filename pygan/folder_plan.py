"""What `pygan train` settles before it trains: resolution, recipe and configuration, with their reasons.

The plan is written once, to `plan.json`; a run goes on by it, and refuses other settings.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from pygan.checkpoint import write_json
from pygan.config import Run
from pygan.data.atomic import replacing
from pygan.data.pictures import Fit
from pygan.data.prepare import prepare
from pygan.data.raw_digest import raw_digest
from pygan.data.sources import folder
from pygan.errors import ConfigError, DataError
from pygan.recipes import FEW, Recipe, budget, recipe
from pygan.sampling import snapshot_path
from pygan.training.init_from import read_snapshot

Say = Callable[[str], None]

_LARGEST = {"cpu": 64}
"""Side chosen at most where none is asked for, pixels; on other devices 256."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says; a run keeps the settings it was started with."""

    pictures: Path
    """Folder or zip, one class per sub-folder or none."""
    out: Path
    """Folder of the run."""
    fit: Fit = "crop"
    """How a picture becomes square."""
    resolution: int | None = None
    """Side of the pictures, pixels; None: by their sizes."""
    recipe: str | None = None
    """One of `pygan.recipes.RECIPES`; None: by their number."""
    kimg: float | None = None
    """Real pictures shown in all, thousands; None: the recipe's."""
    seed: int = 0
    """Of the initialization and everything after."""
    threads: int | None = None
    """Of the processor; None: as many as PyTorch takes."""
    skip_bad: bool = False
    """Leave unreadable pictures out instead of stopping."""
    allow_upscale: bool = False
    """Enlarge pictures that are smaller than the resolution."""
    init_from: Path | None = None
    """Snapshot, or folder of a training, whose networks this one begins with as far as they fit; None: as drawn."""

    def plain(self) -> dict[str, Any]:
        """Return the settings ready for JSON, without `out`, by the names of the command line."""
        values = asdict(self) | {"pictures": str(self.pictures.resolve())}
        values["init_from"] = None if self.init_from is None else str(self.init_from.resolve())
        return {name.replace("_", "-"): value for name, value in values.items() if name != "out"}


def device() -> torch.device:
    """Return the device of a training that was not told one: the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def planned(settings: Settings, say: Say) -> dict[str, Any]:
    """Return the plan of the run, made and written at the first start."""
    file = settings.out / "plan.json"
    if file.exists():
        plan = json.loads(file.read_text())
        _check_same(settings, plan)
        say(f"continuing {settings.out}: {plan['text']}")
        return plan
    plan = _first_plan(settings)
    say(plan["text"])
    write_json(file, plan)
    return plan


def _check_same(settings: Settings, plan: dict[str, Any]) -> None:
    for name, value in settings.plain().items():
        before = plan["settings"].get(name)
        if value != before:
            raise ConfigError(
                f"--{name}: got {value}, but {settings.out} was started with {before}; give it again, or name another "
                "--out"
            )
    if settings.pictures.exists() and _digest(settings) != plan["digest"]:
        raise ConfigError(
            f"{settings.pictures}: the files changed after {settings.out} was started; name another --out"
        )


def _digest(settings: Settings) -> str:
    return raw_digest({"kind": "folder", "path": str(settings.pictures)})


def _first_plan(settings: Settings) -> dict[str, Any]:
    """Prepare the pictures, choose what was left open, and write down why."""
    recipe(1, settings.resolution or 16, name=settings.recipe)  # a wrong name is found before pictures are decoded
    digest = _digest(settings)
    source = None if settings.init_from is None else _source(settings.init_from)
    found = folder.survey(str(settings.pictures))
    resolution, why = choose_resolution(found.sizes, fit=settings.fit, asked=settings.resolution, device=device().type)
    if source and settings.resolution is None:
        resolution, why = source["context"]["resolution"], "that of --init-from"
    manifest = _prepare(settings, resolution, found)
    counts = {split: entry["n"] for split, entry in manifest["splits"].items()}
    if min(counts.values()) < 2:
        raise DataError(f"{settings.pictures}: got {counts} pictures, expected at least 2 in each: add pictures")
    chosen = _recipe(settings, manifest, resolution, source)
    config = _config(settings, chosen.run)
    because = "".join(f"  {key}: {reason}\n" for key, reason in chosen.reasons.items())
    text = (
        f"{settings.pictures} to {settings.out}\n"
        f"{_of_pictures(settings, manifest, counts, len(found.others))}\n"
        f"resolution: {resolution} pixels ({why})\n"
        f"recipe: {chosen.name}\n{because}"
        f"training: {config['training']['total_nimg']} images in steps of {config['training']['batch']}"
    )
    return {
        "settings": settings.plain(),
        "digest": digest,
        "recipe": chosen.name,
        "reasons": chosen.reasons,
        "init_from": source and source["snapshot"],
        "config": config,
        "text": text,
    }


def _recipe(settings: Settings, manifest: dict[str, Any], resolution: int, source: dict[str, Any] | None) -> Recipe:
    """Return the recipe for the prepared pictures, with what --init-from and --kimg change and why.

    Args:
        source: as `_source` returns it; None: the networks begin as drawn.
    """
    n_images = manifest["splits"]["train"]["n"]
    of_classes = dict(zip(manifest["class_names"], manifest["splits"]["train"]["counts"], strict=True))
    empty = [name for name, count in of_classes.items() if not count]
    name = settings.recipe or (_recipe_of(source, n_images) if source else None)
    num_classes = 0 if empty else len(of_classes)
    chosen = recipe(n_images, resolution, num_classes=num_classes, name=name, device=device().type)
    run, reasons = dict(chosen.run), dict(chosen.reasons)
    if source:
        run["base"] = source["base"] | {"conditional": run["base"]["conditional"]}
        reasons["base"] = f"that of --init-from {source['snapshot']}, whose networks this training begins with"
    if empty:
        reasons["base.conditional"] = f"the class {empty[0]} has no picture left to train with"
    if settings.kimg is not None:
        reasons["training.total_nimg"] = "as asked for"
    return replace(chosen, run=run, reasons=reasons)


def _of_pictures(settings: Settings, manifest: dict[str, Any], counts: dict[str, int], others: int) -> str:
    """Return the line that says what became of the pictures."""
    rejected = f", {len(manifest['rejected'])} rejected (see {settings.out / 'rejected.tsv'})"
    return (
        f"pictures: {sum(counts.values())} kept, {counts['train']} of them to train with and {counts['validation']} + "
        f"{counts['test']} to choose and to measure by{rejected if manifest['rejected'] else ''}, "
        f"{manifest['duplicates']} duplicates, {others} other files left alone"
    )


def _source(path: Path) -> dict[str, Any]:
    """Return base network and context of the snapshot that --init-from stands for, and the file as `snapshot`."""
    snapshot = snapshot_path(path)
    _, metadata = read_snapshot(snapshot)
    if not {"base", "context"} <= metadata.keys():
        raise DataError(f"--init-from: {snapshot} does not describe its networks, expected a training snapshot")
    return {"base": metadata["base"], "context": metadata["context"], "snapshot": str(snapshot.resolve())}


def _recipe_of(source: dict[str, Any], n_images: int) -> str:
    """Return the recipe for the base network of a snapshot."""
    kind = source["base"]["kind"]
    names = {"dcgan": "small", "sngan": "residual", "stylegan2": "low_shot" if n_images < FEW else "auto"}
    if kind not in names:
        raise ConfigError(
            f"--init-from: no recipe trains a {kind}, expected one of {', '.join(names)} (`init_from` of a study can)"
        )
    return names[kind]


def choose_resolution(sizes: list[tuple[int, int]], *, fit: Fit, asked: int | None, device: str) -> tuple[int, str]:
    """Return the side of the pictures and why: a power of two that nine of ten pictures have.

    Args:
        sizes: width and height of pictures.
        fit: how a picture becomes square.
        asked: the side that was asked for; None: none was.
        device: `cpu`, or a kind of GPU.
    """
    if asked is not None:
        return asked, "as asked for"
    if not sizes:
        return 32, "no picture could be read"
    side = max if fit == "pad" else min
    common = sorted(side(size) for size in sizes)[len(sizes) // 10]
    largest = _LARGEST.get(device, 256)
    why = f"nine of ten pictures have {common} or more"
    if common >= 2 * largest:
        return largest, f"{why}, and more takes long on this device: --resolution asks for it"
    return max(1 << (common.bit_length() - 1), 16), why


def held_out_share(n: int) -> float:
    """Return the share of n pictures to choose by, and as much to measure by: small sets hold out more."""
    return min(0.25, max(0.1, 10 / max(n, 1)))


def _prepare(settings: Settings, resolution: int, found: folder.Survey) -> dict[str, Any]:
    """Write the data set and `rejected.tsv`; return the manifest."""
    listed = settings.out / "rejected.tsv"

    def rejecting(rejected: list[tuple[str, str]]) -> None:
        rows = [*rejected, *((name, "left alone: its suffix is no picture's") for name in found.others)]
        with replacing(listed) as scratch:
            scratch.write_text("file\treason\n" + "".join(f"{_field(name)}\t{_field(why)}\n" for name, why in rows))
        if rejected and not settings.skip_bad:
            name, why = rejected[0]
            raise DataError(
                f"{settings.pictures}: {len(rejected)} pictures can't be used, the first is {name} ({why}); all are in "
                f"{listed}: repair them, or leave them out with --skip-bad"
            )

    held_out = held_out_share(found.n)
    source = folder.Spec(
        path=str(settings.pictures),
        fit=settings.fit,
        allow_upscale=settings.allow_upscale,
        skip_bad=True,  # `rejecting` decides, when all of them are known
        validation=held_out,
        test=held_out,
    )
    return prepare(
        settings.out.name,
        source,
        settings.out / "data",
        resolution=resolution,
        workers=os.cpu_count() or 1,
        rejecting=rejecting,
    )


def _field(text: str) -> str:
    """A name or sentence without what ends a field of the table; undecodable bytes are escaped."""
    return text.replace("\t", " ").replace("\n", " ").encode("utf-8", "backslashreplace").decode()


def _config(settings: Settings, run: dict[str, Any]) -> dict[str, Any]:
    """Return the whole configuration of the run as plain values."""
    training = dict(run["training"])
    if settings.kimg is not None:
        per_step = training["batch"] * training.get("d_steps", 1)
        training |= budget(settings.kimg, per_step, snapshots=max(len(training["snapshots"]) - 1, 1))
    adapter = TypeAdapter(Run)
    values = adapter.validate_python({**run, "training": training, "dataset": settings.out.name})
    return adapter.dump_python(values, mode="json") | {"seed": settings.seed, "run": settings.out.name}
