"""The study file: one typed model over the specs of all packages, its checks, and errors that name the key.

`load` is what `pygan check` runs before any job starts. The workflow sees the plain mapping and validates it with the
schema that `pipeline.schema` writes from this module, so it is parsed without importing torch.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from pygan import assets, augment, discriminators, features, losses, metrics, networks, pruning, regularizers
from pygan.context import Context
from pygan.data import sources
from pygan.data.subset import Subset
from pygan.errors import ConfigError, MissingInput
from pygan.features.probe import CRITERIA
from pygan.metrics.base import measured_name
from pygan.spec import OneOf, spec
from pygan.training.spec import TrainingSpec

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Part of a file name."""


Source = Annotated[Any, OneOf("pygan.data.sources", sources.KINDS)]
Network = Annotated[Any, OneOf("pygan.networks", networks.KINDS)]
Augment = Annotated[Any, OneOf("pygan.augment", augment.KINDS)]
Discriminator = Annotated[Any, OneOf("pygan.discriminators", discriminators.KINDS)]
Regularizer = Annotated[Any, OneOf("pygan.regularizers", regularizers.KINDS)]
Pruner = Annotated[Any, OneOf("pygan.pruning", pruning.KINDS)]
Feature = Annotated[Any, OneOf("pygan.features", features.KINDS)]
Judge = Annotated[Any, OneOf("pygan.features", (*features.METRIC_KINDS, *features.KINDS))]
Metric = Annotated[Any, OneOf("pygan.metrics", metrics.KINDS)]


@spec
class Dataset:
    """Pictures of one kind, at one resolution."""

    source: Source
    """Where the pictures come from."""
    resolution: int = Field(ge=8)
    """Side of the stored squares, pixels."""
    channels: Literal[1, 3] = 3
    """1: gray, 3: RGB."""
    codec: Literal["raw", "png", "jpeg"] = "raw"
    """How the store keeps a picture."""


@spec
class Continues:
    """A snapshot to start from: networks, average and optimizers; the image count goes on."""

    run: str
    """Name of the run; the snapshot is the one with the same seed."""
    nimg: int = Field(ge=0)
    """Which of that run's `training.snapshots`."""


@spec
class Run:
    """One arm: a base network and the methods added to it, trained once per seed."""

    dataset: str
    """Key of `datasets`."""
    subset: Subset | None = None
    """Which training pictures, drawn by the seed; null: all."""
    sampling: Literal["natural", "balanced"] = "natural"
    """Real pictures of a batch: every picture as often as any other, or every class (a control on long tails)."""
    gen_labels: Literal["natural", "uniform"] = "natural"
    """Classes of generated pictures in training: as often as among the training pictures, or all alike (as in the
    gSR release); without effect on an unconditional run, which must leave it alone."""
    base: Network
    """Generator and discriminator."""
    loss: Literal[tuple(losses.OBJECTIVES)] = "hinge"
    """The adversarial objective."""
    augment: Augment | None = None
    """What every discriminator sees its pictures through; null: nothing."""
    discriminators: tuple[Discriminator, ...] = Field(default=({"kind": "plain"},), min_length=1, validate_default=True)
    """Players against the generator; the first one is the base network's own."""
    regularizers: tuple[Regularizer, ...] = ()
    """Terms added to the losses."""
    training: TrainingSpec
    """Budget, optimizers, average and records."""
    continues: Continues | None = None
    """Where to start; null: from the initialization that the seed draws."""
    ticket: Pruner | None = None
    """Train a pruned generator; null: a dense one."""


@spec
class Probe:
    """The linear probe that chooses networks from the bank for vision-aided runs."""

    n_images: int = Field(default=100, ge=8)
    """Real pictures at most, and as many generated ones."""
    criterion: Literal[CRITERIA] = "accuracy"
    """What the networks are ranked by: held-out accuracy (official code) or cross-entropy (paper)."""


@spec
class Select:
    """Which snapshot of a run is evaluated; decided on the validation split."""

    metric: Metric
    """Its first value decides, lowest is best."""
    n_gen: int = Field(default=500, ge=10)
    """Generated pictures per candidate."""
    candidates: int = Field(default=2, ge=1)
    """How many snapshots of a run compete, counted from the last; as many as there are where there are fewer."""


@spec
class Evaluate:
    """The measurements against the test split."""

    metrics: tuple[Metric, ...] = Field(min_length=1)
    """What is measured."""
    n_gen: int = Field(default=1500, ge=10)
    """Generated pictures."""
    gen_labels: Literal["uniform", "test"] = "uniform"
    """Classes of a conditional generator's pictures: all alike, as published for balanced test splits and the best for
    class-wise numbers; or as often as in the test split, for distances to a split with a natural tail."""
    network: Judge
    """Whose features are compared."""


@spec
class Anchors:
    """Subjects that give the numbers a scale; null: not measured."""

    untrained: str | None = None
    """Run whose generator is measured at its initialization."""
    pca_gaussian: str | None = None
    """Run to whose training pictures the Gaussian is fitted."""
    real: str | None = None
    """Data set whose training split is measured: the floor that a model can reach."""


@spec
class Claim:
    """What the study says about a method before its numbers are seen."""

    id: Name
    method: str
    """A kind that the arm uses."""
    statement: str
    arm: str
    """Run that uses the method."""
    against: str
    """Run it is compared with."""
    metric: str
    """A number of `evaluate`, for example fd_mobilenet_v2."""
    direction: Literal["lower", "higher"]
    """Which values are better."""
    minimum_effect: float = Field(gt=0)
    """Smallest improvement worth having, in units of the metric."""
    control: str | None = None
    """Run with everything of the arm but the idea itself; null: none."""


@spec
class Study:
    """A whole study file."""

    name: str
    """Title of the report."""
    output: str = Field(default="results", min_length=1)
    """Folder of the results."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Every run trains once per seed; runs are compared seed by seed."""
    threads: int = Field(default=1, ge=1)
    """Threads of a training on the CPU; as many trainings run side by side as cores allow."""
    processes: int = Field(default=1, ge=1)
    """Processes of one training, each with a GPU where there are GPUs; its batches are shared among them."""
    datasets: dict[Name, Dataset]
    """The pictures, by name."""
    bank: tuple[Feature, ...] = ()
    """Frozen networks that the probe chooses from."""
    runs: dict[Name, Run] = Field(min_length=1)
    """The arms, by name; those listed first are trained first."""
    probe: Probe = Field(default={}, validate_default=True)
    """How the bank is ranked."""
    select: Select
    """How a snapshot is chosen."""
    evaluate: Evaluate
    """What is measured."""
    anchors: Anchors = Field(default={}, validate_default=True)
    """What it is compared with."""
    claims: tuple[Claim, ...] = ()
    """What the study set out to show."""

    def plain(self) -> dict[str, Any]:
        """Return the mapping with every default filled in, as JSON types."""
        return ADAPTER.dump_python(self, mode="json")


ADAPTER = TypeAdapter(Study)


def load(path: Path) -> Study:
    """Return the checked study of a file.

    Raises:
        ConfigError: no YAML, a key that is unknown, missing, twice there or of the wrong type, or a combination that
            cannot run; the message begins with the file and the key.
        MissingInput: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingInput(f"{path}: no such study file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    try:
        study = parse_study(_read_yaml(text))
        check_combinations(study)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return study


def parse_study(values: Any) -> Study:
    """Return the study in a plain mapping, types taken strictly (no text for numbers, no `yes` for 1)."""
    try:
        return ADAPTER.validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


# Reading YAML


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice and a key that is not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen = set()
        for key in own:
            name = self.construct_object(key, deep=True)
            line = key.start_mark.line + 1
            if not isinstance(name, str):
                raise ConfigError(f"line {line}: the key {key.value!r} is read as {name!r}, put it in quotes")
            if name in seen:
                raise ConfigError(f"line {line}: the key {name!r} is there twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"line {line}: not YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({error})") from error


# Errors as sentences


def _sentence(error: ValidationError) -> str:
    """The first problem in one sentence; an unknown key comes first, as it often explains a missing one."""
    problems = error.errors(include_url=False)
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    first = next((p for p in problems if p["type"] in unknown), problems[0])
    keys, node = _walk(first["loc"])
    where, got, context = ".".join(map(str, keys)) or "the study", first["input"], first.get("ctx", {})
    match first["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            _, parent = _walk(first["loc"][:-1])
            return f"{where}: unknown key, {_expected(str(keys[-1]), list(parent.get('properties', {})))}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{where}: the key is missing"
        case "union_tag_not_found":
            kinds = list(node["discriminator"]["mapping"])
            return f"{where}: got {got!r}, expected a mapping with the key 'kind' (one of {', '.join(kinds)})"
        case "union_tag_invalid":
            kind, kinds = context["tag"], list(node["discriminator"]["mapping"])
            if kind in features.METRIC_KINDS:
                return f"{where}.kind: {kind} judges the results, so it cannot take part in training"
            return f"{where}.kind: got {kind!r}, {_expected(kind, kinds)}"
        case "literal_error":
            choices = node.get("enum", [node.get("const")])
            return f"{where}: got {got!r}, {_expected(str(got), list(map(str, choices)))}"
        case "string_pattern_mismatch":
            return f"{where.removesuffix('.[key]')}: a name is made of letters, digits and . _ -, got {got!r}"
        case "value_error":
            return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    hint = ""
    if isinstance(got, str) and first["type"].startswith("float") and _is_number(got):
        hint = f" (YAML reads {got} as text: write {float(got)!r} or put a point in it, as in 1.0e-3)"
    return f"{where}: got {got!r}, expected {first['msg'].removeprefix('Input should be ')}{hint}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _expected(got: str, known: list[str]) -> str:
    close = difflib.get_close_matches(got, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def _walk(loc: tuple[str | int, ...]) -> tuple[list[str | int], dict[str, Any]]:
    """Follow the location of an error through the schema: the YAML keys on the way and the schema at its end."""
    schema = ADAPTER.json_schema()
    definitions = schema.get("$defs", {})

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        if "anyOf" in node:
            node = next((choice for choice in node["anyOf"] if choice.get("type") != "null"), {})
        return resolved(definitions[node["$ref"].rsplit("/", 1)[1]]) if "$ref" in node else node

    keys: list[str | int] = []
    node = resolved(schema)
    for part in loc:
        if "discriminator" in node and part in node["discriminator"]["mapping"]:
            node = resolved({"$ref": node["discriminator"]["mapping"][part]})
            continue
        keys.append(part)
        any_key = next(iter(node.get("patternProperties", {}).values()), {})
        child = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part, any_key)
        node = resolved(child or {})
    return keys, node


# Combinations


def check_combinations(study: Study) -> None:
    """Raise `ConfigError` where parts that are valid by themselves do not fit together."""
    if len(set(study.seeds)) < len(study.seeds):
        raise ConfigError(f"seeds: got {list(study.seeds)}, expected every seed once")
    _check_bank(study)
    for name, run in study.runs.items():
        _known(f"runs.{name}.dataset", run.dataset, study.datasets)
        _check_networks(study, name, run)
        _check_discriminators(study, name, run)
        _check_classes(name, run)
        _check_start(study, name, run)
    for name in study.runs:
        _check_no_cycle(study, name)
    _check_anchors(study)
    _check_labels_to_measure(study)
    _check_claims(study)


def _known(key: str, name: str, names: dict[str, Any]) -> None:
    if name not in names:
        raise ConfigError(f"{key}: got {name!r}, {_expected(name, list(names))}")


def _check_bank(study: Study) -> None:
    kinds = [entry.kind for entry in study.bank]
    for place, kind in enumerate(kinds):
        if kind in kinds[:place]:
            raise ConfigError(f"bank.{place}: {kind} is in the bank already")
    if study.evaluate.network.kind in kinds:
        raise ConfigError(f"evaluate.network: {study.evaluate.network.kind} is in the bank, so it cannot be the judge")


def _check_networks(study: Study, name: str, run: Run) -> None:
    """Build the networks without their memory, so that a resolution they cannot have is found here."""
    dataset = study.datasets[run.dataset]
    ctx = Context(resolution=dataset.resolution, channels=dataset.channels)
    try:
        with torch.device("meta"):
            run.base.generator(ctx)
            run.base.discriminator(ctx)
    except ValueError as error:
        raise ConfigError(f"runs.{name}.base: {error}") from error


def _check_discriminators(study: Study, name: str, run: Run) -> None:
    key = f"runs.{name}.discriminators"
    kinds = [discriminator.kind for discriminator in run.discriminators]
    if kinds[0] != "plain" or "plain" in kinds[1:]:
        raise ConfigError(f"{key}: got {kinds}, expected `plain` first and once")
    aided = [discriminator for discriminator in run.discriminators if discriminator.kind == "vision_aided"]
    if len(aided) > 1:
        raise ConfigError(f"{key}: got vision_aided {len(aided)} times, expected it once with its `count`")
    if not aided:
        return
    if aided[0].count > len(study.bank):
        raise ConfigError(f"{key}: vision_aided asks for {aided[0].count} networks, but `bank` lists {len(study.bank)}")
    if run.continues is None:
        raise ConfigError(
            f"runs.{name}.continues: a vision_aided run needs it, because the probe looks at that run's pictures "
            "(nimg: 0 starts from the beginning)"
        )


def _check_start(study: Study, name: str, run: Run) -> None:
    """Check `continues` and `ticket`: the other run fits and has the snapshot."""
    starts: list[tuple[str, str, int]] = []
    if run.continues is not None:
        starts.append((f"runs.{name}.continues.run", run.continues.run, run.continues.nimg))
    if run.ticket is not None:
        starts.append((f"runs.{name}.ticket.found_in", run.ticket.found_in, run.ticket.rewind_nimg))
        if run.continues is not None and run.ticket.rewind_nimg:
            raise ConfigError(f"runs.{name}.ticket.rewind_nimg: a run that `continues` another cannot rewind too")
    for key, other_name, nimg in starts:
        _known(key, other_name, study.runs)
        other = study.runs[other_name]
        for field in ("dataset", "base", "subset"):
            if getattr(other, field) != getattr(run, field):
                raise ConfigError(f"{key}: {other_name} has another `{field}` than {name}, expected the same")
        if nimg and nimg not in other.training.snapshots:
            raise ConfigError(f"{key}: {other_name} lists no snapshot at {nimg} images: add it to its snapshots")
    if (start := _start_nimg(run)) >= run.training.total_nimg:
        raise ConfigError(f"runs.{name}.training.total_nimg: got {run.training.total_nimg}, expected more than {start}")
    if run.continues is not None and run.continues.nimg == 0 and not _has_untrained(study.runs[run.continues.run]):
        raise ConfigError(f"runs.{name}.continues.nimg: {run.continues.run} lists no snapshot at 0 images: add it")


def _check_labels_to_measure(study: Study) -> None:
    """Refuse a class-wise metric that no run can be measured by; runs without labels do without it."""
    if needs_classes(study.select.metric):
        raise ConfigError(
            f"select.metric: {study.select.metric.kind} is class-wise, expected a distance of all pictures"
        )
    if any(run.base.conditional for run in study.runs.values()):
        return
    for i, metric in enumerate(study.evaluate.metrics):
        if needs_classes(metric):
            raise ConfigError(
                f"evaluate.metrics.{i}: {metric.kind} needs labels, but no run has `conditional: true` in its `base`"
            )


def _check_classes(name: str, run: Run) -> None:
    """Refuse what needs labels in a run without."""
    if run.base.conditional:
        return
    needy = [(f"regularizers.{i}", term.kind) for i, term in enumerate(run.regularizers) if needs_classes(term)]
    needy += [("gen_labels", "uniform")] if run.gen_labels == "uniform" else []
    for key, what in needy:
        raise ConfigError(f"runs.{name}.{key}: {what} needs labels, set `conditional: true` in `base`")


def needs_classes(method: Any) -> bool:
    """Whether the `Spec` of a method says that it needs labels."""
    return getattr(method, "needs_classes", False)


def _start_nimg(run: Run) -> int:
    if run.continues is not None:
        return run.continues.nimg
    return run.ticket.rewind_nimg if run.ticket is not None else 0


def _has_untrained(run: Run) -> bool:
    """Whether a run writes its networks as they were drawn."""
    return 0 in run.training.snapshots and run.continues is None and _start_nimg(run) == 0


def _check_no_cycle(study: Study, name: str) -> None:
    """Follow `continues` and `found_in` from run to run; coming back is a cycle."""

    def follow(run: str, path: tuple[str, ...]) -> None:
        if run in path:
            raise ConfigError(f"runs.{name}: {' -> '.join((*path, run))} is a circle of `continues` and `found_in`")
        here = study.runs[run]
        if here.continues is not None:
            follow(here.continues.run, (*path, run))
        if here.ticket is not None:
            follow(here.ticket.found_in, (*path, run))

    follow(name, ())


def _check_anchors(study: Study) -> None:
    for key in ("untrained", "pca_gaussian"):
        if (run := getattr(study.anchors, key)) is not None:
            _known(f"anchors.{key}", run, study.runs)
    if study.anchors.untrained is not None and not _has_untrained(study.runs[study.anchors.untrained]):
        raise ConfigError(f"anchors.untrained: {study.anchors.untrained} writes no snapshot at 0 images: add it")
    if study.anchors.real is not None:
        _known("anchors.real", study.anchors.real, study.datasets)


def _check_claims(study: Study) -> None:
    ids = [claim.id for claim in study.claims]
    names = {name: None for name in measured_names(study)} if study.claims else {}
    for place, claim in enumerate(study.claims):
        key = f"claims.{place}"
        if claim.id in ids[:place]:
            raise ConfigError(f"{key}.id: {claim.id!r} is there twice")
        for field in ("arm", "against", "control"):
            if (run := getattr(claim, field)) is not None:
                _known(f"{key}.{field}", run, study.runs)
        if claim.arm == claim.against:
            raise ConfigError(f"{key}.against: {claim.arm!r} cannot be compared with itself")
        if study.runs[claim.arm].dataset != study.runs[claim.against].dataset:
            raise ConfigError(f"{key}.against: {claim.against} has another data set than {claim.arm}")
        _known(f"{key}.method", claim.method, {kind: None for kind in _methods(study.runs[claim.arm])})
        _known(f"{key}.metric", claim.metric, names)


def _methods(run: Run) -> Iterator[str]:
    for slot in (run.augment, *run.discriminators, *run.regularizers, run.ticket):
        if slot is not None and getattr(slot, "weight", None) != 0:  # a term of weight 0 only reports
            yield slot.kind


def measured_names(study: Study) -> list[str]:
    """Return the names of the numbers that `evaluate` reports, found by measuring random features."""
    network = study.evaluate.network.kind
    noise = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))
    found = [
        name
        for metric in study.evaluate.metrics
        for name in getattr(metric, "names", None) or metric.build().compute(noise[0], noise[1])
    ]
    return [measured_name(name, network) for name in found]


# Files


def check_files(study: Study) -> None:
    """Check that the packaged files, which the study's sources and networks need, are there and the user's data open.

    Raises:
        MissingInput: a file is not there; the message names it and the command that brings it.
        DataError: a folder or archive of pictures cannot be used.
    """
    kinds = {dataset.source.kind for dataset in study.datasets.values()}
    kinds |= {study.evaluate.network.kind, *(entry.kind for entry in study.bank)}
    for entry in assets.status():
        if kinds.intersection(entry["used_by"]):
            assets.find(entry["file"])
    for dataset in study.datasets.values():
        if hasattr(dataset.source, "path"):
            dataset.source.build(Context(resolution=dataset.resolution, channels=dataset.channels))
