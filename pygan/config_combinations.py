"""Runs whose parts are valid by themselves and do not fit together, found before any job starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pygan.config_reading import known
from pygan.context import Context
from pygan.errors import ConfigError
from pygan.pruning.masks import bare_networks

if TYPE_CHECKING:
    from pygan.config import Run, Study


def check_combinations(study: Study) -> None:
    """Raise `ConfigError` where parts of runs that are valid by themselves do not fit together."""
    if len(set(study.seeds)) < len(study.seeds):
        raise ConfigError(f"seeds: got {list(study.seeds)}, expected every seed once")
    _check_sections(study)
    _check_bank(study)
    for name, run in study.runs.items():
        known(f"runs.{name}.dataset", run.dataset, study.datasets)
        _check_family(name, run)
        _check_networks(study, name, run)
        _check_batches(study, name, run)
        _check_discriminators(study, name, run)
        _check_classes(name, run)
        _check_start(study, name, run)
        _check_ticket(study, name, run)
    for name, run in study.runs.items():
        _check_no_cycle(study, name)
        _check_players_before(study, name, run)


def _check_sections(study: Study) -> None:
    """Check that there is something to do, and what it takes."""
    if not study.runs and study.theory is None and study.diffusion is None:
        raise ConfigError("runs: got none, expected at least one (or a `theory`, or `diffusion`)")
    anchors = study.anchors
    measured = (anchors.untrained, anchors.pca_gaussian, anchors.copycat, anchors.real)
    if selected_runs(study) or any(anchor is not None for anchor in measured):
        for key in ("select", "evaluate"):
            if getattr(study, key) is None:
                raise ConfigError(f"{key}: the key is missing")
    if study.theory is not None and study.theory.images is not None:
        known("theory.images.dataset", study.theory.images.dataset, study.datasets)


def selected_runs(study: Study) -> set[str]:
    """Return the runs of which a snapshot is chosen: those measured, and those whose best one another starts from."""
    starts = [run.continues for run in study.runs.values() if run.continues is not None]
    return {name for name, run in study.runs.items() if run.evaluate} | {
        start.run for start in starts if start.nimg == "best"
    }


def _check_bank(study: Study) -> None:
    names = [entry.name for entry in study.bank]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ConfigError(f"bank.{place}: {name} is in the bank already")
    if study.evaluate is not None and study.evaluate.network.name in names:
        raise ConfigError(f"evaluate.network: {study.evaluate.network.name} is in the bank, so it cannot be the judge")


def is_denoiser(run: Run) -> bool:
    """Whether a run trains a denoiser rather than a generator against discriminators."""
    return not hasattr(run.base, "discriminator")


def _check_family(name: str, run: Run) -> None:
    """Check that base, objective and methods of a run are all those of a denoiser, or all those of a GAN."""
    key, kind = f"runs.{name}", run.base.kind
    labels = getattr(run.augment, "labels", None)
    if not is_denoiser(run):
        if not isinstance(run.loss, str):
            raise ConfigError(f"{key}.loss: {run.loss.kind} trains a denoiser such as unet, but the base is {kind}")
        if labels is not None:
            raise ConfigError(f"{key}.augment: {run.augment.kind} is for denoisers, but the base is {kind}")
        return
    if isinstance(run.loss, str):
        raise ConfigError(
            f"{key}.loss: got {run.loss}, expected a mapping such as {{kind: denoising}}, because {kind} is a denoiser"
        )
    if len(run.discriminators) > 1 or run.discriminators[0].kind != "plain":
        raise ConfigError(f"{key}.discriminators: {kind} is a denoiser, which has none: leave the key out")
    for field in ("regularizers", "ticket", "init_from"):
        if getattr(run, field):
            raise ConfigError(f"{key}.{field}: {kind} is a denoiser, expected the key to be left out")
    if run.augment is not None and labels is None:
        raise ConfigError(
            f"{key}.augment: {run.augment.kind} cannot tell a denoiser what it did, expected labeled_warp"
        )
    if labels is not None and labels != run.base.augment_labels:
        raise ConfigError(
            f"{key}.base.augment_labels: got {run.base.augment_labels}, expected {labels}, those of {run.augment.kind}"
        )
    if run.continues is not None and set(run.continues.reset) - {"optimizers"}:
        raise ConfigError(f"{key}.continues.reset: {kind} is a denoiser, of which only the optimizers can be reset")
    for field in ("d_steps", "g_batch", "g_lazy_every"):
        if getattr(run.training, field) not in (None, 1):
            raise ConfigError(f"{key}.training.{field}: {kind} is a denoiser, expected the key to be left out")


def networks_in_training(run: Run) -> list[Any]:
    """Return the frozen networks that a run names: in its discriminators and regularizers."""
    named = [network for player in run.discriminators for network in getattr(player, "networks", ())]
    return named + [term.network for term in run.regularizers if hasattr(term, "network")]


def _check_networks(study: Study, name: str, run: Run) -> None:
    """Build the networks, so that a resolution they cannot have is found here."""
    if is_denoiser(run):
        try:
            with torch.device("meta"):
                run.base.network(_context(study, run))
        except ValueError as error:
            raise ConfigError(f"runs.{name}.base: {error}") from error
        return
    try:
        networks = _bare_networks(study, run)
    except ValueError as error:
        raise ConfigError(f"runs.{name}.base: {error}") from error
    if not hasattr(networks["G"], "mapping") and any(
        regularizer.kind == "path_length" for regularizer in run.regularizers
    ):
        raise ConfigError(
            f"runs.{name}.regularizers: path_length needs a base with an intermediate latent space such as stylegan2, "
            f"{run.base.kind} has none"
        )
    if run.augment is not None:
        try:
            run.augment.build(_context(study, run))
        except ValueError as error:
            raise ConfigError(f"runs.{name}: {error}") from error


def _check_batches(study: Study, name: str, run: Run) -> None:
    """Check that the processes can share the batches, and that the networks can compute their parts."""
    training = run.training
    for key, batch in (("batch", training.batch), ("g_batch", training.g_batch or training.batch)):
        if batch % study.processes:
            raise ConfigError(
                f"runs.{name}.training.{key}: got {batch}, expected a multiple of the {study.processes} processes"
            )
        if hasattr(run.base, "check_micro_batch"):
            for n in sorted(training.micro_batches(batch // study.processes)):
                try:
                    run.base.check_micro_batch(n)
                except ConfigError as error:
                    raise ConfigError(f"runs.{name}.base.{error} (training.{key}, batch_gpu and processes)") from error


def _context(study: Study, run: Run) -> Context:
    """Return the surroundings of a run, as if there were no classes: those are not known yet."""
    dataset = study.datasets[run.dataset]
    return Context(resolution=dataset.resolution, channels=dataset.channels)


def _bare_networks(study: Study, run: Run) -> nn.ModuleDict:
    """Return the networks of a run without their memory; runs of the same base share them."""
    ctx = _context(study, run)
    return _networks_of(run.base, ctx.resolution, ctx.channels)


@lru_cache(maxsize=64)
def _networks_of(base: Any, resolution: int, channels: int) -> nn.ModuleDict:
    return bare_networks(base, Context(resolution=resolution, channels=channels))


def _check_discriminators(study: Study, name: str, run: Run) -> None:
    key = f"runs.{name}.discriminators"
    kinds = [discriminator.kind for discriminator in run.discriminators]
    if "plain" in kinds[1:]:
        raise ConfigError(f"{key}: got {kinds}, expected `plain` first and once")
    aided = _aided(run)
    if kinds.count("vision_aided") > 1:
        raise ConfigError(f"{key}: got vision_aided {len(kinds) - 1} times, expected it once with its `count`")
    if aided is None:
        return
    if kinds[0] != "plain":
        _check_heads_alone(name, run, aided)
    if aided.networks:
        if aided.objective == "bce" and aided.smoothing == "auto":
            raise ConfigError(f"{key}: no probe looks at named `networks`, so `smoothing` is always or never")
    elif aided.count > len(study.bank):
        raise ConfigError(f"{key}: vision_aided asks for {aided.count} networks, but `bank` lists {len(study.bank)}")
    elif run.continues is None:
        raise ConfigError(
            f"runs.{name}.continues: a vision_aided run needs it, because the probe looks at that run's pictures "
            "(nimg: 0 starts from the beginning)"
        )


def _aided(run: Run) -> Any | None:
    """The vision-aided entry of a run."""
    return next((d for d in run.discriminators if d.kind == "vision_aided"), None)


def _check_heads_alone(name: str, run: Run, aided: Any) -> None:
    """Without the base discriminator nobody is there to be regularized or to play during a warm-up."""
    for place, regularizer in enumerate(run.regularizers):
        if regularizer.kind in ("r1", "lecam"):
            raise ConfigError(
                f"runs.{name}.regularizers.{place}: {regularizer.kind} regularizes the base discriminator, which "
                "`discriminators` does not list"
            )
    if aided.warmup_nimg:
        raise ConfigError(f"runs.{name}.discriminators.0.warmup_nimg: nobody plays meanwhile, put `plain` first")


def _check_start(study: Study, name: str, run: Run) -> None:
    """Check `continues` and `ticket`: the other run fits and has the snapshot."""
    starts: list[tuple[str, str, int]] = []
    if run.init_from is not None:
        for other in ("continues", "ticket"):
            if getattr(run, other) is not None:
                raise ConfigError(f"runs.{name}.init_from: a run with `{other}` has another start already")
    if run.continues is not None:
        starts.append((f"runs.{name}.continues.run", run.continues.run, start_nimg(run)))
    if run.ticket is not None:
        if run.ticket.found_in is not None:
            starts.append((f"runs.{name}.ticket.found_in", run.ticket.found_in, run.ticket.rewind_nimg))
        if run.continues is not None and run.ticket.rewind_nimg:
            raise ConfigError(f"runs.{name}.ticket.rewind_nimg: a run that `continues` another cannot rewind too")
    for key, other_name, nimg in starts:
        known(key, other_name, study.runs)
        other = study.runs[other_name]
        for field in ("dataset", "base", "subset"):
            if getattr(other, field) != getattr(run, field):
                raise ConfigError(f"{key}: {other_name} has another `{field}` than {name}, expected the same")
        if nimg and nimg not in other.training.snapshots:
            raise ConfigError(f"{key}: {other_name} lists no snapshot at {nimg} images: add it to its snapshots")
    if (start := start_nimg(run)) >= run.training.total_nimg:
        raise ConfigError(f"runs.{name}.training.total_nimg: got {run.training.total_nimg}, expected more than {start}")
    if run.continues is None:
        return
    before = study.runs[run.continues.run]
    if run.continues.nimg == 0 and not _writes_its_start(before):
        raise ConfigError(f"runs.{name}.continues.nimg: {run.continues.run} lists no snapshot at 0 images: add it")


def _check_players_before(study: Study, name: str, run: Run) -> None:
    """Check that the discriminators of the run before are there, at the same places of the list."""
    if run.continues is None or "discriminators" in run.continues.reset:
        return
    key, before = f"runs.{name}", study.runs[run.continues.run]
    if run.discriminators[0].kind != before.discriminators[0].kind:
        raise ConfigError(
            f"{key}.continues.reset: {run.continues.run} has another first discriminator, so `discriminators` are not "
            "taken over: list them here"
        )
    old, new = _aided(before), _aided(run)
    if old is None:
        return
    if new is None or bool(old.networks) != bool(new.networks):
        raise ConfigError(
            f"{key}.discriminators: {run.continues.run} has vision_aided, expected it here too, both with named "
            "`networks` or both with a probe (or reset: [discriminators])"
        )
    if _size(new) < _size(old) or new.networks[: len(old.networks)] != old.networks:
        raise ConfigError(
            f"{key}.discriminators: expected the networks of {run.continues.run} and perhaps more of them"
        )


def _size(aided: Any) -> int:
    return len(aided.networks) or aided.count


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


def _check_followed(study: Study, key: str, name: str, run: Run, other_name: str) -> None:
    """Check the run whose ticket another one follows; it may have seen other pictures, of the same size."""
    known(key, other_name, study.runs)
    other = study.runs[other_name]
    if other.ticket is None:
        raise ConfigError(f"{key}: {other_name} has no ticket, expected a run with one")
    if other.base != run.base:
        raise ConfigError(f"{key}: {other_name} has another `base` than {name}, expected the same")
    for field in ("resolution", "channels"):
        theirs, own = (getattr(study.datasets[r.dataset], field) for r in (other, run))
        if theirs != own:
            raise ConfigError(f"{key}: {other_name} has pictures of another `{field}` ({theirs}) than {name} ({own})")


def _check_ticket(study: Study, name: str, run: Run) -> None:
    """Check that the run's networks have what its ticket prunes, and that a ticket to follow exists."""
    if run.ticket is None:
        return
    try:
        run.ticket.check(_bare_networks(study, run))
    except ValueError as error:
        raise ConfigError(f"runs.{name}.ticket: {error}") from error
    for field in ("like", "mask_of"):
        if (other_name := getattr(run.ticket, field, None)) is not None:
            _check_followed(study, f"runs.{name}.ticket.{field}", name, run, other_name)
    if getattr(run.ticket, "like", None) is not None:
        structure = getattr(study.runs[run.ticket.like].ticket, "structure", run.ticket.structure)
        if structure != run.ticket.structure:
            raise ConfigError(f"runs.{name}.ticket.structure: expected {structure}, that of {run.ticket.like}")


def start_nimg(run: Run) -> int:
    """The image count of the start; 0 for a best snapshot, with which the count begins again."""
    if run.continues is not None:
        return 0 if run.continues.nimg == "best" else run.continues.nimg
    return run.ticket.rewind_nimg if run.ticket is not None else 0


def _writes_its_start(run: Run) -> bool:
    """Whether a run writes its networks before the first step."""
    return 0 in run.training.snapshots and run.continues is None and start_nimg(run) == 0


def has_untrained(run: Run) -> bool:
    """Whether a run writes its networks as they were drawn."""
    return _writes_its_start(run) and run.init_from is None


def _check_no_cycle(study: Study, name: str) -> None:
    """Follow `continues` and the runs that tickets name; coming back is a cycle."""

    def follow(run: str, path: tuple[str, ...]) -> None:
        if run in path:
            raise ConfigError(f"runs.{name}: {' -> '.join((*path, run))} is a circle of `continues` and `ticket`")
        here = study.runs[run]
        if here.continues is not None:
            follow(here.continues.run, (*path, run))
        for key in ("found_in", "like", "mask_of"):
            if (other := getattr(here.ticket, key, None)) is not None:
                follow(other, (*path, run))

    follow(name, ())


def check_labels(study: Study, dataset: str, class_names: Sequence[str]) -> None:
    """Raise `ConfigError` where a run needs classes and its data set has one or none."""
    for name, run in study.runs.items():
        if run.dataset == dataset and run.base.conditional and len(class_names) < 2:
            raise ConfigError(
                f"runs.{name}.base.conditional: {dataset} has no labels, expected at least two classes "
                "(a sub-folder per class, or source.labels)"
            )
