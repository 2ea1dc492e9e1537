"""The study file: one typed model over the specs of all packages, and its checks.

`load` is what `pygan check` runs before any job starts. The workflow sees the plain mapping and validates it with the
schema that `pipeline.schema` writes from this module, so it is parsed without importing torch.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from pygan import (
    assets,
    augment,
    diffusion,
    discriminators,
    features,
    losses,
    metrics,
    networks,
    pruning,
    regularizers,
    weights,
)
from pygan.checkpoint import read_tensors
from pygan.config_combinations import check_combinations, check_labels, networks_in_training
from pygan.config_measurements import check_measurements
from pygan.config_reading import read_json, read_yaml, sentence
from pygan.context import Context
from pygan.data import sources
from pygan.data.subset import Subset
from pygan.diffusion.study import DiffusionSpec
from pygan.errors import ConfigError, MissingInput, PyganError
from pygan.features.probe import CRITERIA
from pygan.pruning.masks import as_masks, bare_networks, check_fit
from pygan.regularizers.reg_dgm_theory import TheorySpec
from pygan.spec import OneOf, spec
from pygan.training.spec import TrainingSpec

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Part of a file name."""

Source = Annotated[Any, OneOf("pygan.data.sources", sources.KINDS)]
Network = Annotated[Any, OneOf("pygan.networks", networks.KINDS)]
Augment = Annotated[Any, OneOf("pygan.augment", augment.KINDS)]
Discriminator = Annotated[Any, OneOf("pygan.discriminators", discriminators.KINDS)]
Regularizer = Annotated[Any, OneOf("pygan.regularizers", regularizers.KINDS)]
Denoising = Annotated[Any, OneOf("pygan.diffusion", diffusion.KINDS)]
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
    """A snapshot to start from: networks, average and optimizers."""

    run: str
    """Name of the run; the snapshot is the one with the same seed."""
    nimg: Annotated[int, Field(ge=0)] | Literal["best"]
    """Which of that run's `training.snapshots`, the image count goes on; best: the one that `select` chooses on the
    validation split, and the image count begins at 0 again (a stage of its own, as in vision-aided GANs)."""
    reset: tuple[Literal["optimizers", "augment", "discriminators"], ...] = ()
    """What is not taken over: optimizers: the moments of Adam; augment: what adaptive augmentations have learned;
    discriminators: all of them. Published for the stages of vision-aided GANs: optimizers and augment."""


@spec
class Run:
    """One arm: a base network and the methods added to it, trained once per seed."""

    dataset: str
    """Key of `datasets`."""
    subset: Subset | None = None
    """Which training pictures, drawn by the seed; null: all."""
    mirror: bool = False
    """Show every other training picture flipped from left to right, drawn anew each time."""
    sampling: Literal["natural", "balanced"] = "natural"
    """Real pictures of a batch: every picture as often as any other, or every class (a control on long tails)."""
    gen_labels: Literal["natural", "uniform"] = "natural"
    """Classes of generated pictures in training: as often as among the training pictures, or all alike (as in the
    gSR release); without effect on an unconditional run, which must leave it alone."""
    base: Network
    """Generator and discriminator, or the network of a denoiser (unet)."""
    loss: Literal[tuple(losses.OBJECTIVES)] | Denoising = "hinge"
    """The adversarial objective; of a denoiser a mapping with the `kind` of its objective, which has to be given."""
    augment: Augment | None = None
    """What every discriminator, or the denoiser, sees its pictures through; null: nothing."""
    discriminators: tuple[Discriminator, ...] = Field(default=({"kind": "plain"},), min_length=1, validate_default=True)
    """Players against the generator; the first one is the base network's own. Without it: a control of vision_aided. A
    denoiser has none and must leave the key alone."""
    regularizers: tuple[Regularizer, ...] = ()
    """Terms added to the losses."""
    training: TrainingSpec
    """Budget, optimizers, average and records."""
    continues: Continues | None = None
    """Where to start; null: from the initialization that the seed draws."""
    init_from: str | None = None
    """Snapshot file of another study, or one that `pygan import-nvlabs` wrote: networks begin with what fits by name
    and shape, the same for every seed; optimizers and the count of pictures begin anew. null: nothing is taken over."""
    ticket: Pruner | None = None
    """Train a pruned generator; null: a dense one."""
    evaluate: bool = True
    """Select a snapshot and measure it against the test split; false: other runs or the section `diffusion` use it."""


@spec
class Probe:
    """The linear probe that chooses networks from the bank for vision-aided runs."""

    n_images: int = Field(default=100, ge=8)
    """Real pictures at most, and as many generated ones."""
    criterion: Literal[CRITERIA] = "accuracy"
    """What the networks are ranked by: held-out accuracy (official code) or cross-entropy (paper)."""
    repeats: int = Field(default=3, ge=1)
    """Random halves whose results are averaged."""


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
class FurtherJudge:
    """A second opinion: the same pictures in the features of another network."""

    network: Judge
    """Whose features are compared; its numbers carry its name."""
    metrics: tuple[Metric, ...] = Field(min_length=1)
    """What is measured."""
    n_gen: int | None = Field(default=None, ge=10)
    """The first so many of the generated pictures; null: all."""
    shared: bool = False
    """The network may take part in training too (in the bank or in a method): its numbers then favor those runs, and
    say so."""


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
    also: tuple[FurtherJudge, ...] = ()
    """Further judges. A gain that one feature space shows and another does not is a gain in features."""


@spec
class Anchors:
    """Subjects that give the numbers a scale; null: not measured."""

    untrained: str | None = None
    """Run whose generator is measured at its initialization."""
    pca_gaussian: str | None = None
    """Run to whose training pictures the Gaussian is fitted."""
    copycat: str | None = None
    """Run whose training pictures are measured as if a generator repeated them: a model that is better than this is
    better than the pictures it saw, and every measure of memorization must find this one."""
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
    """Run that uses the method; with `stage: diffusion`, a subject of that stage's `numbers`."""
    against: str
    """What it is compared with."""
    metric: str
    """A number of `evaluate`, for example fd_mobilenet_v2; with `stage: diffusion`, one of that stage."""
    direction: Literal["lower", "higher"]
    """Which values are better."""
    minimum_effect: float = Field(gt=0)
    """Smallest improvement worth having, in units of the metric."""
    control: str | None = None
    """Run with everything of the arm but the idea itself; null: none."""
    equal_time: str | None = None
    """Run without the method that trains as many seconds as the arm; told beside the verdict. null: none."""
    stage: Literal["evaluate", "diffusion"] = "evaluate"
    """Whose numbers it is about: those of runs, or those of the section `diffusion`."""


@spec
class Study:
    """A whole study file."""

    name: str
    """Title of the report."""
    output: str = Field(default="results", min_length=1)
    """Folder of the results."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Every run trains once per seed; runs are compared seed by seed."""
    weights_dir: str | None = None
    """Folder of the weights that no package carries; null: that of `pygan weights`. $PYGAN_WEIGHTS comes before it."""
    threads: int = Field(default=1, ge=1)
    """Threads of a training on the CPU; as many trainings run side by side as cores allow."""
    processes: int = Field(default=1, ge=1)
    """Processes of one training, each with a GPU where there are GPUs; its batches are shared among them."""
    datasets: dict[Name, Dataset]
    """The pictures, by name."""
    bank: tuple[Feature, ...] = ()
    """Frozen networks that the probe chooses from."""
    runs: dict[Name, Run] = Field(default={})
    """The arms, by name; those listed first are trained first. None in a study of theory alone."""
    probe: Probe = Field(default={}, validate_default=True)
    """How the bank is ranked."""
    select: Select | None = None
    """How a snapshot is chosen; required where runs or anchors are measured."""
    evaluate: Evaluate | None = None
    """What is measured; required where runs or anchors are measured."""
    anchors: Anchors = Field(default={}, validate_default=True)
    """What it is compared with."""
    claims: tuple[Claim, ...] = ()
    """What the study set out to show."""
    theory: TheorySpec | None = None
    """The theory of Reg-DGM, computed and shown in the report; null: not."""
    diffusion: DiffusionSpec | None = None
    """What generative models owe their training set, measured and shown in the report; null: not."""

    def plain(self) -> dict[str, Any]:
        """Return the mapping with every default filled in, as JSON types."""
        return ADAPTER.dump_python(self, mode="json")


ADAPTER = TypeAdapter(Study)


def load(path: Path) -> Study:
    """Return the checked study of a file.

    Raises:
        ConfigError: no YAML (JSON where the suffix is .json), a key that is unknown, missing, twice there or of the
            wrong type, or a combination that cannot run; the message begins with the file and the key.
        MissingInput: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingInput(f"{path}: no such study file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    try:
        study = parse_study((read_json if path.suffix == ".json" else read_yaml)(text))
        check(study)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return study


def check(study: Study) -> None:
    """Raise `ConfigError` where parts of a study that are valid by themselves do not fit together."""
    check_combinations(study)
    check_measurements(study)


def parse_study(values: Any) -> Study:
    """Return the study in a plain mapping, types taken strictly (no text for numbers, no `yes` for 1)."""
    try:
        return ADAPTER.validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(sentence(error, ADAPTER.json_schema())) from error


def check_files(study: Study) -> None:
    """Check what the study needs from outside: packages, packaged and fetched files, the user's pictures and files.

    Everything is opened, and everything that is wrong is named in one error, a line each.

    Raises:
        MissingInput: a package or file is not there; the line names it and the command that brings it.
        DataError: a folder or archive of pictures or a file with weights cannot be used, or a mask is of another
            architecture.
        ConfigError: a run needs labels and its pictures have none, or a network lacks a tap that the study names.

    Where several things are wrong, the class of the error is that of the first.
    """
    if study.weights_dir is not None:
        os.environ.setdefault(weights.FOLDER, study.weights_dir)
    found = list({str(error): error for error in _problems(study)}.values())
    if len(found) > 1:
        lines = "".join(f"\n  {error}" for error in found)
        raise type(found[0])(f"{len(found)} things are missing or cannot be used:{lines}") from found[0]
    if found:
        raise found[0]


def _problems(study: Study) -> Iterator[PyganError]:
    """Yield everything that is missing or wrong outside of the study file; a thing may come more than once."""
    networks = _networks(study)
    kinds = {dataset.source.kind for dataset in study.datasets.values()} | {network.kind for network in networks}
    for entry in assets.status():
        if kinds.intersection(entry["used_by"]):
            yield from _error_of(assets.find, entry["file"])
    for network in dict.fromkeys(networks):
        yield from network.problems()
    for name, dataset in study.datasets.items():
        if hasattr(dataset.source, "path"):
            yield from _error_of(_check_pictures, study, name, dataset)
    for name, run in study.runs.items():
        if run.init_from is not None:
            yield from _error_of(_read, f"runs.{name}.init_from", Path(run.init_from))
        if getattr(run.ticket, "path", None) is not None:
            mask = (f"runs.{name}.ticket.path", Path(run.ticket.path), run, study.datasets[run.dataset])
            yield from _error_of(_check_mask_file, *mask)


def _error_of(check: Callable[..., Any], *arguments: Any) -> Iterator[PyganError]:
    """Yield the error with which a check ends, if it does."""
    try:
        check(*arguments)
    except PyganError as error:
        yield error


def _check_pictures(study: Study, name: str, dataset: Dataset) -> None:
    pictures = dataset.source.build(Context(resolution=dataset.resolution, channels=dataset.channels))
    check_labels(study, name, pictures.class_names)


def _networks(study: Study) -> list[Any]:
    """Return the frozen networks that a study names: in its bank, as judge, in discriminators and regularizers."""
    judges = [] if study.evaluate is None else [judge.network for judge in (study.evaluate, *study.evaluate.also)]
    return [*judges, *study.bank, *(network for run in study.runs.values() for network in networks_in_training(run))]


def _read(key: str, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors and metadata of a file that the study names under `key`."""
    if not path.is_file():
        raise MissingInput(f"{key}: {path}: no such file")
    return read_tensors(path)


def _check_mask_file(key: str, path: Path, run: Run, dataset: Dataset) -> None:
    tensors, metadata = _read(key, path)
    classes = metadata.get("context", {}).get("num_classes", 0) if run.base.conditional else 0
    ctx = Context(resolution=dataset.resolution, channels=dataset.channels, num_classes=classes)
    check_fit(bare_networks(run.base, ctx), as_masks(tensors, f"{key}: {path}"), f"{key}: {path}")
