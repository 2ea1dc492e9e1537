"""The report as one HTML file that needs nothing beside it: styles inside, pictures as data URIs, no scripts."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pygan.report import (
    classes,
    copies,
    diffusion,
    figures,
    overfitting,
    provenance,
    sentences,
    tables,
    theory,
    tickets,
)
from pygan.report.effect_bars import effect_bars
from pygan.report.equal_time import equal_time_table, longer_table, scored_snapshots
from pygan.report.evidence import MDE_DEFINITION, NOT_SUPPORTED, SUPPORTED, UNDECIDED, Verdict
from pygan.report.plots import Plot
from pygan.report.rule_graph import rule_graph
from pygan.report.study import Study, values_of
from pygan.report.text import duration, keep_units, metric_title, number

TEMPLATE = "page.html.j2"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG with its caption."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """What belongs to one run: sample grids or training curves."""

    run: str
    color: str
    note: str
    pictures: tuple[Picture, ...] = ()
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """One verdict: in words, and as a bar."""

    verdict: str
    statement: str
    sentence: str
    bar: str
    """SVG; empty: no effect to draw."""


def render(study: Study, verdicts: Sequence[Verdict]) -> str:
    """Return the page of a study as HTML."""
    colors = figures.run_colors(list(study.runs))
    grids, neighbors = _grids(study, colors), _neighbors(study, colors)
    settings, shared = tables.settings_table(study, colors)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["units"] = keep_units
    return environment.get_template(TEMPLATE).render(
        study=study,
        facts=_facts(study),
        progress=_progress(study),
        cards=_cards(study, verdicts),
        score=_score(verdicts),
        question=tables.question_table(study, colors),
        data=tables.data_table(study),
        settings=settings,
        shared=shared,
        contact_sheets=_contact_sheets(study),
        grids=grids,
        more_grids=any(len(section.pictures) > 1 for section in grids),
        copies=copies.copies_tables(study, colors),
        copies_sentence=copies.copies_sentence(study),
        neighbors=neighbors,
        more_neighbors=any(len(section.pictures) > 1 for section in neighbors),
        curves=_curves(study, colors),
        main_tables=tables.main_tables(study, colors),
        metric_plots=_metric_plots(study, colors),
        class_tables=classes.class_tables(study, colors),
        class_sections=classes.class_sections(study, colors),
        claims=tables.claims_table(study, verdicts, colors),
        mde_definition=MDE_DEFINITION,
        time=tables.time_table(study, colors),
        time_sentence=sentences.time_sentence(study),
        longer=longer_table(study, verdicts, colors),
        equal_time=equal_time_table(study, colors),
        time_plots=_time_plots(study, colors),
        image_plots=_image_plots(study, colors),
        overfitting=overfitting.overfitting_table(study, colors),
        overfitting_plot=overfitting.overfitting_plot(study),
        overfitting_sentence=overfitting.overfitting_sentence(study),
        stages=tables.stage_table(study),
        probe=tables.probe_table(study, colors),
        probe_criteria=sorted({str(p.record["criterion"]) for p in study.probes if p.record.get("criterion")}),
        ticket=tickets.ticket_table(study, colors),
        ticket_shares=tickets.share_table(study, colors),
        ticket_sentence=tickets.share_sentence(study),
        ticket_plots=tickets.sparsity_plots(study),
        ticket_tensors=tickets.ticket_tensors(study),
        selection=tables.selection_table(study, colors),
        selection_metrics=sorted({str(s.record["metric"]) for s in study.selections if s.record.get("metric")}),
        protocols=tables.protocol_boxes(study),
        cautions=[*sentences.cautions(study), *copies.judge_cautions(study)],
        surroundings=[("Seeds", ", ".join(map(str, study.seeds))), ("Seeds finished", _finished(study))],
        made_with=provenance.made_with(study),
        trainings=provenance.provenance_table(study, colors),
        configuration=provenance.configuration(study),
        rule_graph=rule_graph(study.rule_graph, study.stage_seconds) if study.rule_graph else None,
        theory=theory.parts(study.theory) if study.theory else [],
        diffusion=diffusion.parts(study.diffusion) if study.diffusion else [],
    )


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png).decode("ascii")


def _facts(study: Study) -> list[tuple[str, str]]:
    """Return what stands in large print: trainings, images, seconds, machine."""
    jobs = list(study.jobs.values())
    planned = len(study.runs) * len(study.seeds)
    done = sum(job.name in study.runs for job in jobs)
    facts = [(f"{done} of {planned}" if done < planned else f"{done}", "trainings finished")]
    if jobs:
        facts.append((duration(sum(job.seconds for job in jobs)), "of training, summed"))
        facts.append((f"{max(job.nimg for job in jobs):,}", "images seen by a run, at most"))
    evaluated = sum(len(study.of_run(run)) for run in study.runs)
    facts.append((f"{evaluated}", "generators measured on test pictures"))
    return facts


def _finished(study: Study) -> str:
    done = {run: len(study.of_run(run)) for run in study.evaluated}
    missing = [f"{run} {seeds} of {len(study.seeds)}" for run, seeds in done.items() if seeds < len(study.seeds)]
    return "; ".join(missing) or f"all {len(study.seeds)} in every run"


def _progress(study: Study) -> str:
    """Say what is still missing; empty for a finished study."""
    planned = len(study.evaluated) * len(study.seeds)
    done = sum(len(study.of_run(run)) for run in study.evaluated)
    if done >= planned:
        return ""
    return (
        f"Not finished: {done} of {planned} runs and seeds are measured ({_finished(study)}). Everything below is what "
        "there is so far, and verdicts can change."
    )


def _cards(study: Study, verdicts: Sequence[Verdict]) -> list[Card]:
    lines = sentences.headlines(study, verdicts)
    bars = effect_bars(verdicts) + [""] * (len(lines) - len(verdicts))
    return [
        Card(verdict=line.verdict, statement=line.statement, sentence=line.sentence, bar=bar)
        for line, bar in zip(lines, bars, strict=True)
    ]


def _score(verdicts: Sequence[Verdict]) -> list[tuple[str, int]]:
    """Return verdict -> how many claims have it, in the order supported, undecided, not supported."""
    counts = [(name, sum(v.verdict == name for v in verdicts)) for name in (SUPPORTED, UNDECIDED, NOT_SUPPORTED)]
    return [(name, number) for name, number in counts if number]


def _compact(path: Path, *, upper_half: bool = False) -> bytes:
    """Return a picture as PNG without the pixels that only repeat their neighbors; the page enlarges it as sharply.

    Raises:
        ValueError: the file is not a picture.
    """
    try:
        picture = Image.open(path).convert("RGB")
    except OSError as error:
        raise ValueError(f"{path}: not a picture ({error})") from error
    if upper_half:
        picture = picture.crop((0, 0, picture.width, picture.height // 2))
    while not (picture.width % 2 or picture.height % 2):
        half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
        if half.resize(picture.size, Image.Resampling.NEAREST).tobytes() != picture.tobytes():
            break
        picture = half
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _contact_sheets(study: Study) -> list[Picture]:
    return [
        Picture(uri=_data_uri(_compact(path)), caption=dataset, alt=f"real pictures of {dataset}")
        for dataset, path in study.contact_sheets.items()
    ]


def _grids(study: Study, colors: Mapping[str, str]) -> list[RunSection]:
    """One grid per run and seed: of the evaluated snapshot, or of the last where none was evaluated."""
    sections = []
    for run in study.runs:
        evaluated = {evaluation.seed: evaluation.nimg for evaluation in study.of_run(run)}
        pictures = []
        for seed in study.seeds:
            by_nimg = study.samples.get((run, seed))
            if not by_nimg:
                continue
            nimg = evaluated.get(seed) if evaluated.get(seed) in by_nimg else max(by_nimg)
            pictures.append(
                Picture(
                    uri=_data_uri(_compact(by_nimg[nimg], upper_half=bool(pictures))),
                    caption=f"after {nimg:,} images, z from seed {seed}" + (", upper half" if pictures else ""),
                    alt=f"pictures generated by {run}, seed {seed}, after {nimg:,} images",
                )
            )
        if pictures:
            sections.append(RunSection(run=run, color=colors[run], note=_methods(study, run), pictures=tuple(pictures)))
    return sections


def _neighbors(study: Study, colors: Mapping[str, str]) -> list[RunSection]:
    sections = []
    for run in study.runs:
        pictures = tuple(
            Picture(
                uri=_data_uri(_compact(study.neighbors[run, seed])),
                caption=f"seed {seed}",
                alt=f"pictures generated by {run}, seed {seed}, beside the training pictures nearest to them",
            )
            for seed in study.seeds
            if (run, seed) in study.neighbors
        )
        if pictures:
            sections.append(RunSection(run=run, color=colors[run], note="", pictures=pictures))
    return sections


def _start(study: Study, run: str) -> tuple[int | None, str]:
    """Return the image count at which a curve goes on from another run, if it does, and a sentence about it."""
    parent = (study.runs[run] or {}).get("continues")
    if not parent:
        return None, ""
    if parent["nimg"] == "best":
        return None, f"starts from the best snapshot of {parent['run']} and counts its images anew"
    return parent["nimg"], f"continues {parent['run']} from {parent['nimg']:,} images on (dotted line)"


def _curves(study: Study, colors: Mapping[str, str]) -> list[RunSection]:
    sections = []
    for run in study.runs:
        stats = {seed: ticks for seed in study.seeds if (ticks := study.curves(run, seed))}
        if not stats:
            continue
        continued_at, note = _start(study, run)
        columns = dict.fromkeys(key for ticks in stats.values() for tick in ticks for key in tick)
        heads = dict.fromkeys(key.split("/")[1] for key in columns if key.startswith("head/"))
        losses = [key.removeprefix("loss/") for key in columns if key.startswith("loss/")]
        panels = [("discriminator, mean logit", "logits", "mean logit")]
        panels += [(f"head on {head}, mean logit", f"head/{head}", "mean logit") for head in heads]
        panels += [("averaged denoiser, loss per value", "denoising", "loss")]
        plots = [
            figures.training_curves(
                title=title,
                lines={part: figures.curves_of(stats, f"{prefix}/{part}") for part in figures.PART_COLORS},
                colors=figures.PART_COLORS,
                ylabel=ylabel,
                continued_at=continued_at,
            )
            for title, prefix, ylabel in panels
        ]
        plots.append(
            figures.training_curves(
                title="losses",
                lines={loss: figures.curves_of(stats, f"loss/{loss}") for loss in losses},
                colors=figures.LOSS_COLORS | figures.run_colors([loss for loss in losses if len(loss) > 1]),
                ylabel="loss",
                continued_at=continued_at,
            )
        )
        drawn = tuple(plot for plot in plots if plot)
        sections.append(RunSection(run=run, color=colors[run], note=note, plots=drawn))
    return sections


def _metric_plots(study: Study, colors: Mapping[str, str]) -> list[Plot]:
    plots = []
    for dataset in study.datasets():
        runs = [run for run in study.runs if any(e.dataset == dataset for e in study.of_run(run))]
        anchors = study.anchors_of(dataset)
        for metric in study.metric_names():
            references = {
                tables.anchor_label(group[0].subject): sum(values) / len(values)
                for group in anchors
                if (values := values_of(group, metric))
            }
            plots.append(
                figures.values_by_run(
                    title=metric_title(metric),
                    values={run: study.values(run, metric) for run in runs},
                    colors=colors,
                    references=references,
                )
            )
    return [plot for plot in plots if plot]


def _time_plots(study: Study, colors: Mapping[str, str]) -> list[Plot]:
    """The first metric against seconds, and the validation score of each snapshot against its seconds."""
    plots = []
    for metric in study.metric_names()[:1]:
        points = {}
        for run in study.runs:
            seconds = study.seconds_by_seed(run)
            values = study.values(run, metric)
            points[run] = [(seconds[seed], values[seed]) for seed in sorted(seconds.keys() & values.keys())]
        title = f"{metric_title(metric)}, test split"
        plots.append(figures.metric_against_seconds(title, metric_title(metric), points, colors))
    lines: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for selection in study.selections:
        scores = {int(nimg): score for nimg, score in selection.record.get("scores", {}).items()}
        points = [(study.seconds_at(selection.run, selection.seed, n), scores[n]) for n in sorted(scores)]
        if points and all(seconds is not None for seconds, _ in points):
            lines.setdefault(selection.run, {})[selection.seed] = points
    if lines:
        name = metric_title(str(study.selections[0].record.get("metric", "score")))
        ordered = {run: lines[run] for run in study.runs if run in lines}
        plots.append(figures.lines_against_seconds(f"{name} of snapshots, validation", name, ordered, colors))
    return [plot for plot in plots if plot]


def _image_plots(study: Study, colors: Mapping[str, str]) -> list[Plot]:
    """The validation score of every snapshot over images seen: a panel per claim, or one of all runs without claims."""
    if not study.selections:
        return []
    name = metric_title(str(study.selections[0].record.get("metric", "score")))
    groups = _compared(study) or {"all runs": tuple(study.runs)}
    plots = []
    for title, runs in groups.items():
        lines = {
            run: {
                seed: sorted(points.items()) for seed in study.seeds if (points := scored_snapshots(study, run, seed))
            }
            for run in runs
        }
        plots.append(figures.lines_over_images(title, f"{name}, validation", lines, colors))
    return [plot for plot in plots if plot]


def _compared(study: Study) -> dict[str, tuple[str, ...]]:
    """Return claim id -> the runs it compares; a set of runs that another claim compared before is left out."""
    groups: dict[frozenset[str], tuple[str, tuple[str, ...]]] = {}
    for claim in (claim for claim in study.claims if claim.stage == "evaluate"):
        runs = tuple(reversed(claim.subjects))
        groups.setdefault(frozenset(runs), (claim.id, runs))
    return dict(groups.values())


def _methods(study: Study, run: str) -> str:
    parts = [", ".join(study.methods(run)) or "no method added"]
    for metric in study.metric_names()[:1]:
        if values := study.values(run, metric):
            title = metric_title(metric)
            parts.append(f"{title} {number(sum(values.values()) / len(values))}")
    return "; ".join(parts)
