"""What the report says in words, each sentence computed from the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pygan.report.evidence import NOT_SUPPORTED, SUPPORTED, Paired, Verdict
from pygan.report.study import Study
from pygan.report.text import better, counted, decimals_for, duration, mean_of, metric_title, number, optional

EQUAL_TIME = 1.1
"""Two runs whose training seconds differ by less than this factor took about equal time."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A verdict in words."""

    verdict: str
    """Empty: a remark that judges no claim."""
    statement: str
    sentence: str


def headlines(study: Study, verdicts: Sequence[Verdict]) -> list[Headline]:
    """Return one sentence per claim, and one on the untrained generator where it was measured."""
    lines = [
        Headline(verdict=v.verdict, statement=v.claim.statement, sentence=_verdict_sentence(study, v)) for v in verdicts
    ]
    if remark := _untrained_sentence(study):
        lines.append(Headline(verdict="", statement="Training helps at all.", sentence=remark))
    return lines


def _verdict_sentence(study: Study, v: Verdict) -> str:
    claim, effect = v.claim, v.effect
    if effect.mean is None or effect.ci95 is None:
        return f"Undecided: {v.reason}."
    arm, against = (study.claimed_values(claim, name) for name in (claim.arm, claim.against))
    shown = [effect.mean, *effect.ci95, claim.minimum_effect]
    decimals = decimals_for(shown)
    low, high = (number(bound, decimals) for bound in effect.ci95)
    means = [_mean_over(effect.seeds, values) for values in (arm, against)]
    places = decimals_for(means)
    side = "better" if effect.mean >= 0 else "worse"
    measured = (
        f"{metric_title(claim.metric)} is {number(means[0], places)} for {claim.arm} and {number(means[1], places)} "
        f"for {claim.against} over {len(effect.seeds)} paired seeds, {side} by {number(abs(effect.mean), decimals)} "
        f"(95 % interval of the improvement: {low} to {high})"
    )
    others = [
        _comparison(f"the control {claim.control}", v.control, "the gain is more than the two have in common"),
        _comparison(f"{claim.equal_time} at equal time", v.equal_time, "the gain is worth its time"),
    ]
    others += [
        _comparison(f"{claim.against} in {metric_title(metric)}", effect, "another network finds it, too")
        for metric, effect in study.other_judges(claim).items()
    ]
    return f"{measured}{_consequence(v, decimals)}.{_cost(study, v)}{_devices(study, v)}{''.join(others)}"


def _mean_over(seeds: Sequence[int], values: Mapping[int, float]) -> float:
    return mean_of([values[seed] for seed in seeds])


def _comparison(other: str, effect: Paired | None, meaning: str) -> str:
    """Return what a comparison beside that of the claim says; empty for none."""
    if effect is None:
        return ""
    if effect.mean is None or effect.ci95 is None:
        return f" Against {other}: {counted(len(effect.seeds), 'paired seed')}, an interval needs at least 2."
    decimals = decimals_for([effect.mean, *effect.ci95])
    low, high = (number(bound, decimals) for bound in effect.ci95)
    side = "better" if effect.mean >= 0 else "worse"
    measured = f" Against {other} it is {side} by {number(abs(effect.mean), decimals)} ({low} to {high})"
    if effect.shows_improvement:
        return f"{measured}: {meaning}."
    if effect.ci95[1] < 0:
        return f"{measured}: {other} does better without the method."
    return (
        f"{measured}: undecided, effects below about {optional(effect.minimum_detectable_effect, decimals)} go "
        "undetected with so few seeds."
    )


def _consequence(v: Verdict, decimals: int) -> str:
    minimum = f"{v.claim.minimum_effect:g}"
    if v.verdict == SUPPORTED:
        small = v.effect.mean < v.claim.minimum_effect
        return f"; it is smaller than the minimum effect of {minimum}" if small else ""
    if v.verdict == NOT_SUPPORTED:
        if v.effect.ci95[1] < 0:
            found = "the method made it worse"
        else:
            found = "an effect too small to matter" if v.effect.shows_improvement else "a null result"
        return f", which excludes the minimum effect of {minimum}: {found}"
    if v.effect.shows_improvement:
        return f", but it is not shown to be better than its control {v.claim.control}"
    return (
        f", which excludes neither 0 nor the minimum effect of {minimum}; effects below about "
        f"{optional(v.minimum_detectable_effect, decimals)} go undetected with so few seeds"
    )


def _cost(study: Study, v: Verdict) -> str:
    ratio = study.seconds_ratio(v.claim.arm, v.claim.against) if v.claim.stage == "evaluate" else None
    if ratio is None or 1 / EQUAL_TIME < ratio < EQUAL_TIME:
        return ""
    search = " with the search for its ticket" if (study.runs[v.claim.arm] or {}).get("ticket") else ""
    return f" Not at equal time: {v.claim.arm} trained {ratio:.1f} times as long{search}."


def _devices(study: Study, v: Verdict) -> str:
    """Say which runs of a claim computed on which kind of device; empty where there is one kind."""
    runs: dict[str, list[str]] = {}
    for run in v.claim.subjects:
        for kind in study.device_kinds(run):
            runs.setdefault(kind, []).append(run)
    if len(runs) < 2:
        return ""
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in sorted(runs.items()))
    return (
        f" The runs did not compute on one kind of device ({listed}), so the effect includes their different rounding."
    )


def _untrained_sentence(study: Study) -> str:
    metric = next((m for m in study.metric_names() if better(m) == "lower"), None)
    untrained = {
        (a.dataset, a.seed): a.metrics[metric].value
        for a in study.anchors
        if a.subject == "untrained" and metric in a.metrics
    }
    pairs = [
        (e, untrained[e.dataset, e.seed])
        for e in study.evaluations
        if metric in e.metrics and (e.dataset, e.seed) in untrained
    ]
    if not pairs:
        return ""
    failed = [f"{e.run} (seed {e.seed})" for e, value in pairs if e.metrics[metric].value >= value]
    if failed:
        return f"Not better than the untrained generator in {metric_title(metric)}: {', '.join(failed)}."
    return f"Every run is better than the untrained generator in every seed, by {metric_title(metric)}."


def time_sentence(study: Study) -> str:
    """Say whether runs of equal images also took equal time."""
    seconds = {run: mean_of(list(by.values())) for run in study.runs if (by := study.seconds_by_seed(run))}
    images = {job.nimg for job in study.jobs.values() if job.name in seconds}
    if len(seconds) < 2:
        return "Equal images are not equal time; with a single run there is nothing to compare."
    low, high = min(seconds, key=seconds.__getitem__), max(seconds, key=seconds.__getitem__)
    seen = (
        f"Every run saw {images.pop():,} images"
        if len(images) == 1
        else f"The runs saw between {min(images):,} and {max(images):,} images"
    )
    if seconds[high] < EQUAL_TIME * seconds[low]:
        return f"{seen}, and every run trained for about {duration(seconds[low])} a seed."
    return (
        f"{seen}, but equal images are not equal time: a seed of {low} trained for {duration(seconds[low])}, a seed of "
        f"{high} for {duration(seconds[high])}, {seconds[high] / seconds[low]:.1f} times as long. Verdicts "
        "compare runs after the images they saw, and tell beside them what a run of equal time reaches."
    )


def cautions(study: Study) -> list[str]:
    """Return what a reader must keep in mind, for the methods and metrics this study has."""
    metrics = study.metric_names()
    methods = {method for e in study.evaluations for method in e.methods}
    families = {metric.partition("_")[0] for metric in metrics}
    most_seeds = max((len(study.of_run(run)) for run in study.runs), default=0)
    lines = []
    if "fd" in families:
        lines.append(
            "The Fréchet distance is biased upward on few pictures, and the more so the fewer there are: compare "
            "values inside this study only, never with numbers from elsewhere, nor with a distance to another number "
            "of real pictures."
        )
    if "vision_aided" in methods and any("mobilenet" in metric or "inception" in metric for metric in metrics):
        lines.append(
            "EfficientNet, which can help the discriminator, and MobileNetV2, which measures, were both trained on "
            "ImageNet: part of a gain of vision-aided training may be features the two share rather than better "
            "pictures."
        )
    if families & {"precision", "recall"}:
        lines.append(
            "Precision favors a generator that makes few, safe pictures: read it together with recall, which falls "
            "when modes are lost."
        )
    if "diffaug" in methods:
        lines.append(
            "Augmented runs start more slowly than plain ones: a shortened run can show the opposite sign and must "
            "not be read as an effect."
        )
    lines.append(
        "Where the discriminator's mean logits on training and generated pictures are less than about 0.5 apart, "
        "their relation to the held-out logit is noise and says nothing about overfitting."
    )
    lines.append(
        f"Intervals are t intervals over at most {counted(most_seeds, 'seed')}, which vary the training subset and the "
        "initial weights together; claims are judged one by one, without a correction for their number."
    )
    return lines
