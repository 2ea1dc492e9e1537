"""What `pygan train` settles before it trains: device, resolution, recipe and configuration, with their reasons.

The plan is written once, to `plan.json`, and a run goes on by it. A larger `--kimg` makes it longer. Settings that say
how a run computes may change, others are refused.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pygan.checkpoint import write_json
from pygan.config import Run
from pygan.data import formats
from pygan.data.raw_digest import raw_digest
from pygan.data.sources import folder
from pygan.errors import ConfigError, DataError, MissingInput
from pygan.folder_bank import bank_for
from pygan.folder_pictures import choose_resolution, prepared
from pygan.folder_settings import DEFAULTS, MAY_CHANGE, Place, Settings
from pygan.recipes import FEW, Recipe, budget, recipe
from pygan.sampling import snapshot_path
from pygan.training.init_from import read_snapshot
from pygan.wording import number_of

Say = Callable[[str], None]

# The plan of a run that was started


def planned(settings: Settings, where: Place, say: Say) -> dict[str, Any]:
    """Return the plan of the run: made and written at the first start, made longer by a larger --kimg.

    Raises:
        ConfigError: the run was started with other settings, or the pictures changed.
        MissingInput: the run is to be made longer, but its checkpoints are gone.
    """
    file = settings.out / "plan.json"
    if not file.exists():
        plan = _first_plan(settings, where)
        say(f"{where}\n{plan['text']}")
        write_json(file, plan)
        return plan
    before = _read(file)
    _check_same(settings, before)
    plan, notes = _continued(settings, before)
    if plan != before:
        write_json(file, plan)
    if not is_finished(settings.out, plan):
        say("\n".join([f"{where}", f"continuing {settings.out}: {plan['text']}", *notes]))
    return plan


def _read(file: Path) -> dict[str, Any]:
    """Return a plan that was written before."""
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}); name another --out") from error
    if not isinstance(plan, dict) or not {"settings", "digest", "config", "text"} <= plan.keys():
        raise DataError(f"{file}: got other content than `pygan train` writes; name another --out")
    return plan


def is_finished(out: Path, plan: dict[str, Any]) -> bool:
    """Whether a run was trained and measured to the end of its plan."""
    return (out / "metrics.json").exists() and _ends_at(out / "run.json", plan["config"])


def is_trained(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a training was done to the end of its configuration."""
    return _ends_at(folder / "trained.json", config)


def _ends_at(record: Path, config: dict[str, Any]) -> bool:
    """Whether a record exists and is about the last picture of a configuration, not of a shorter one."""
    return record.exists() and json.loads(record.read_text())["nimg"] == config["training"]["total_nimg"]


def _check_same(settings: Settings, plan: dict[str, Any]) -> None:
    """Check what may not change; a setting that an older plan lacks counts as its default."""
    for name, value in settings.plain().items():
        before = plan["settings"].get(name, DEFAULTS[name])
        if value != before and name not in MAY_CHANGE and not (name == "kimg" and value is not None):
            option = "pictures" if name == "pictures" else f"--{name}"
            again = f"with {before}; give it again" if before else "without it; leave it out"
            raise ConfigError(f"{option}: got {value}, but {settings.out} was started {again}, or name another --out")
    if settings.pictures.exists() and _digest(settings) != plan["digest"]:
        raise ConfigError(
            f"{settings.pictures}: the files changed after {settings.out} was started; name another --out"
        )


def _digest(settings: Settings) -> str:
    return raw_digest({"kind": "folder", "path": str(settings.pictures)})


def _continued(settings: Settings, plan: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the plan with what these settings change, and what there is to say about it."""
    notes = []
    now = settings.plain()
    for name in MAY_CHANGE:
        before = plan["settings"].get(name, DEFAULTS[name])
        if now[name] != before:
            notes.append(
                f"--{name} was {before} and is {now[name]} now: sums may round differently, so the result may have "
                "other bits than that of a run which kept it"
            )
    changed = {name: now[name] for name in MAY_CHANGE if now[name] != plan["settings"].get(name, DEFAULTS[name])}
    plan = {**plan, "settings": plan["settings"] | changed}
    if settings.kimg is not None and settings.kimg != plan["settings"]["kimg"]:
        plan = _longer(settings, plan)
    return plan, notes


def _longer(settings: Settings, plan: dict[str, Any]) -> dict[str, Any]:
    """Return the plan for more pictures than before; the stages before the last one keep their lengths.

    Networks, optimizers, average and augmentation do not depend on the length, so the last snapshot is, bit by bit,
    that of a training which was planned so long from the start. Snapshots up to the former end stay where they are.
    """
    config, training = plan["config"], plan["config"]["training"]
    before = sum(stage["config"]["training"]["total_nimg"] for stage in plan.get("stages", []))
    former, per_step = training["total_nimg"], training["batch"] * training["d_steps"]
    parts = plan.get("parts", _parts(training))
    new = budget(max(settings.kimg - before / 1000, per_step / 1000), per_step, snapshots=parts)
    total = new["total_nimg"]
    if total < former:
        raise ConfigError(
            f"--kimg: got {settings.kimg:g}, but {settings.out} trains {(before + former) / 1000:g} thousand pictures, "
            "and a training cannot be made shorter; give a larger number, or name another --out"
        )
    if total == former:
        return plan
    if is_trained(settings.out, config) and not any((settings.out / "state").glob("*/manifest.json")):
        raise MissingInput(
            f"{settings.out / 'state'}: the checkpoints are gone, without which a finished training cannot be continued"
        )
    snapshots = [*training["snapshots"], *(nimg for nimg in new["snapshots"] if nimg > former)]
    config = config | {"training": training | {"total_nimg": total, "snapshots": snapshots}}
    head = plan["text"].partition("\ntraining: ")[0]
    text = (
        f"{head}\n{_length(plan.get('stages', []), config)}\n"
        f"{former} images were planned before; the networks and their optimizers go on"
    )
    if before:
        text += "; the stages before the last one keep their lengths, unlike in a training so long from the start"
    else:
        text += ", and the last snapshot has the bits of a training that was so long from the start"
    if snapshots != new["snapshots"]:
        text += f"; snapshots up to {former} images lie elsewhere than there"
    return {**plan, "settings": plan["settings"] | {"kimg": settings.kimg}, "config": config, "text": text}


# The plan of a new run


def _first_plan(settings: Settings, where: Place) -> dict[str, Any]:
    """Prepare the pictures, choose what was left open, and write down why."""
    kind = where.device.type
    early = recipe(1, settings.resolution or 16, name=settings.recipe)  # refused before pictures are decoded
    digest = _digest(settings)
    source = None if settings.init_from is None else _source(settings.init_from)
    found = folder.survey(str(settings.pictures))
    resolution, why = choose_resolution(found.sizes, fit=settings.fit, asked=settings.resolution, device=kind)
    if source and settings.resolution is None:
        resolution, why = source["context"]["resolution"], "that of --init-from"
    bank, which = bank_for(resolution) if early.before else ((), "")
    chosen_pictures = {name: getattr(settings, name) for name in ("fit", "allow_upscale", "skip_bad")}
    manifest = prepared(settings.pictures, settings.out, resolution=resolution, found=found, **chosen_pictures)
    chosen = _recipe(settings, where, manifest, resolution, source)
    stages, config = _stages(settings, chosen)
    reasons = chosen.reasons | ({"bank": which} if bank else {})
    because = "".join(f"  {key}: {reason}\n" for key, reason in reasons.items())
    text = (
        f"{settings.pictures} to {settings.out}\n"
        f"{_of_pictures(settings, manifest, found.others)}\n"
        f"resolution: {resolution} pixels ({why})\n"
        f"recipe: {chosen.name}\n{because}{_length(stages, config)}"
    )
    return {
        "settings": settings.plain(),
        "device": {"type": kind, "why": where.why},
        "digest": digest,
        "recipe": chosen.name,
        "reasons": reasons,
        "init_from": source and source["snapshot"],
        "bank": list(bank),
        "parts": _parts(chosen.run["training"]),
        "recipe_kimg": sum(kimg for _, kimg in chosen.before) + chosen.run["training"]["total_nimg"] / 1000,
        "stages": stages,
        "config": config,
        "text": text,
    }


def _recipe(
    settings: Settings, where: Place, manifest: dict[str, Any], resolution: int, source: dict[str, Any] | None
) -> Recipe:
    """Return the recipe for the prepared pictures, with what the other settings change and why.

    Args:
        source: as `_source` returns it; None: the networks begin as drawn.
    """
    n_images = manifest["splits"]["train"]["n"]
    of_classes = dict(zip(manifest["class_names"], manifest["splits"]["train"]["counts"], strict=True))
    empty = [name for name, count in of_classes.items() if not count]
    name = settings.recipe or (_recipe_of(source, n_images) if source else None)
    chosen = recipe(
        n_images,
        resolution,
        num_classes=0 if empty else len(of_classes),
        name=name,
        device=where.device.type,
        processes=where.processes,
    )
    run, reasons = dict(chosen.run), dict(chosen.reasons)
    if source:
        run["base"] = source["base"] | {"conditional": run["base"]["conditional"]}
        reasons["base"] = f"that of --init-from {source['snapshot']}, whose networks this training begins with"
    if empty:
        reasons["base.conditional"] = f"the class {empty[0]} has no picture left to train with"
    run["training"] = _training(settings, run)
    if settings.kimg is not None:
        reasons["training.total_nimg"] = "as asked for"
        if chosen.before:
            reasons["training.total_nimg"] += ", in stages whose lengths have the published proportions"
    if settings.batch is not None:
        reasons["training.batch"] = f"{settings.batch} as asked for; the learning rate stays that of the recipe"
    if settings.precision is not None:
        reasons["training.precision"] = f"{settings.precision} as asked for"
    run["mirror"] = settings.mirror
    if settings.mirror:
        reasons["mirror"] = "as asked for: every other picture is shown flipped from left to right"
    elif chosen.before:
        reasons["mirror"] = "no picture is flipped; published with flipped ones (--mirror)"
    return replace(chosen, run=run, reasons=reasons)


def _training(settings: Settings, run: dict[str, Any]) -> dict[str, Any]:
    """Return the training of a recipe with the batch and the precision that were asked for."""
    training = dict(run["training"])
    if settings.precision is not None:
        training["precision"] = settings.precision
    if settings.batch is not None:
        kimg, parts = training["total_nimg"] / 1000, _parts(training)
        training |= {"batch": settings.batch, "batch_gpu": _micro_batch(settings, run)}
        training |= budget(kimg, settings.batch * training.get("d_steps", 1), snapshots=parts)
    elif training["batch"] % settings.processes:
        raise ConfigError(
            f"--processes: got {settings.processes}, expected a divisor of the recipe's batch of {training['batch']}; "
            "--batch sets another one"
        )
    return training


def _parts(training: dict[str, Any]) -> int:
    """Return how many snapshots a training writes, besides that of its start."""
    return max(len(training["snapshots"]) - 1, 1)


def _micro_batch(settings: Settings, run: dict[str, Any]) -> int | None:
    """Return how many pictures a process computes at a time: at most as many as in the recipe, and whole groups."""
    group = run["base"].get("mbstd_group") or 1
    if settings.batch % (group * settings.processes):
        among = "" if settings.processes == 1 else f" in each of {settings.processes} processes"
        raise ConfigError(
            f"--batch: got {settings.batch}, expected a multiple of {group * settings.processes}: the discriminator "
            f"compares pictures in groups of {group}{among}"
        )
    most, share = run["training"].get("batch_gpu"), settings.batch // settings.processes
    if most is None:
        return None
    return max(size for size in range(group, share + 1, group) if share % size == 0 and size <= max(most, group))


def _stages(settings: Settings, chosen: Recipe) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the stages that come before the last one, with name and configuration, and the configuration of the last.

    A length that was asked for is shared among the stages in the proportion of the recipe's.
    """
    kimgs = [kimg for _, kimg in chosen.before] + [chosen.run["training"]["total_nimg"] / 1000]
    asked = [None] * len(kimgs) if settings.kimg is None else [settings.kimg * kimg / sum(kimgs) for kimg in kimgs]
    stages = []
    for i, (discriminators, kimg) in enumerate(chosen.before):
        run = chosen.run | {"discriminators": discriminators}
        stages.append({"name": f"models_{i}", "config": _config(settings, run, asked[i] or kimg)})
    return stages, _config(settings, chosen.run, asked[-1])


def _config(settings: Settings, run: dict[str, Any], kimg: float | None) -> dict[str, Any]:
    """Return the whole configuration of a run as plain values; `kimg` None: as long as it is."""
    training = dict(run["training"])
    if kimg is not None:
        per_step = training["batch"] * training.get("d_steps", 1)
        training |= budget(kimg, per_step, snapshots=_parts(training))
    adapter = TypeAdapter(Run)
    values = adapter.validate_python({**run, "training": training, "dataset": settings.out.name})
    return adapter.dump_python(values, mode="json") | {"seed": settings.seed, "run": settings.out.name}


def _length(stages: Sequence[dict[str, Any]], config: dict[str, Any]) -> str:
    """Return the lines that say how long the training is; the first one begins with "training: "."""
    lengths = [stage["config"]["training"]["total_nimg"] for stage in stages] + [config["training"]["total_nimg"]]
    text = f"training: {sum(lengths)} images in steps of {config['training']['batch']}"
    if stages:
        text += f", in stages of {', '.join(map(str, lengths[:-1]))} and {lengths[-1]} images"
        text += f" with {', '.join(map(str, range(len(stages))))} and {len(stages)} pretrained networks;"
        text += (
            "\n  each begins with the best snapshot of the one before, by the kernel distance to validation pictures"
        )
        text += " (published: by the FID to the training pictures)"
    return text


def _of_pictures(settings: Settings, manifest: dict[str, Any], others: Sequence[str]) -> str:
    """Return the lines that say what became of the files."""
    counts = {split: entry["n"] for split, entry in manifest["splits"].items()}
    rejected = f", {len(manifest['rejected'])} rejected (see {settings.out / 'rejected.tsv'})"
    line = (
        f"pictures: {sum(counts.values())} kept, {counts['train']} of them to train with and {counts['validation']} + "
        f"{counts['test']} to choose and to measure by{rejected if manifest['rejected'] else ''}, "
        f"{number_of(manifest['duplicates'], 'duplicate')}, {number_of(len(others), 'other file')} left alone"
    )
    return "\n  ".join([line, *formats.left_out(others)])


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
