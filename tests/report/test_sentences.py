"""What a verdict says in words: its control, equal time, and what goes undetected."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_study import FD, PROTOCOL, SEEDS
from scipy import stats

from pygan.report.collect import collect
from pygan.report.evidence import MDE_DEFINITION, minimum_detectable_effect
from pygan.report.sentences import headlines
from pygan.report.study import Evaluation, Study
from pygan.report.summary import summary

FIELDS = {"method": "diffaug", "statement": "It helps.", "metric": "fd_mobilenet_v2", "direction": "lower"}


def judged(study: Study, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The sentence and the summary's entry of one claim, the arm being `aided` against `base`."""
    claim = replace(study.claims[0], **(FIELDS | {"id": "c", "arm": "aided", "against": "base"} | fields))
    study = replace(study, claims=(claim,))
    verdicts = study.verdicts()
    entry = summary(study, verdicts)["claims"][0]
    assert headlines(study, verdicts)[0].sentence == entry["sentence"]
    return entry["sentence"], entry


@pytest.fixture
def study(config: dict[str, Any], study_files: dict[str, list[Path]]) -> Study:
    return collect(config, study_files)


def test_the_control_and_equal_time_have_sentences_of_their_own(study: Study) -> None:
    sentence, entry = judged(study, control="diffaug", equal_time="ticket")
    assert entry["verdict"] == "supported"
    for key, run, words in (
        ("control", "diffaug", "Against the control diffaug it is better by"),
        ("equal_time", "ticket", "Against ticket at equal time it is better by"),
    ):
        gains = [FD[run][seed] - FD["aided"][seed] for seed in SEEDS]
        assert entry[key]["effect"] == pytest.approx(sum(gains) / 3)
        assert entry[key]["run"] == run and entry[key]["n_seeds"] == 3
        error = stats.sem(gains)
        assert entry[key]["ci95"] == pytest.approx(stats.t.interval(0.95, 2, loc=sum(gains) / 3, scale=error))
        assert entry[key]["minimum_detectable_effect"] == pytest.approx(minimum_detectable_effect(error, 3))
        assert words in sentence
    assert "more than the two have in common" in sentence and "worth its time" in sentence


def test_a_better_or_unclear_run_of_equal_time_is_said(study: Study) -> None:
    sentence, entry = judged(study, arm="diffaug", equal_time="aided")
    assert entry["equal_time"]["ci95"][1] < 0
    assert "Against aided at equal time it is worse by" in sentence and "does better without the method" in sentence
    sentence, entry = judged(study, arm="ticket", equal_time="diffaug")
    assert entry["equal_time"]["ci95"][0] < 0 < entry["equal_time"]["ci95"][1]
    mde = f"{entry['equal_time']['minimum_detectable_effect']:.1f}"
    assert f"undecided, effects below about {mde} go undetected with so few seeds" in sentence


def test_an_effect_below_the_minimum_is_no_null_result(study: Study) -> None:
    """It excludes 0, and is not shown to be more than that of the control."""
    sentence, entry = judged(study, control="aided", arm="diffaug", minimum_effect=1000.0)
    assert entry["ci95"][0] > 0 and entry["verdict"] == "not supported" and "an effect too small to matter" in sentence


def test_other_networks_are_heard_and_decide_nothing(study: Study) -> None:
    """Half the distance in the features of another network, and another number of that one, which is not meant."""
    record = PROTOCOL | {"network": "hed_vgg16 32px"}

    def heard(evaluation: Evaluation) -> Evaluation:
        ours = evaluation.metrics["fd_mobilenet_v2"]
        half = replace(ours, value=ours.value / 2, record=record)
        return replace(evaluation, metrics=evaluation.metrics | {"fd_hed_vgg16": half, "recall_hed_vgg16": half})

    _, alone = judged(study)
    sentence, entry = judged(replace(study, evaluations=tuple(map(heard, study.evaluations))))
    assert alone["other_judges"] == {} and entry["other_judges"].keys() == {"fd_hed_vgg16"}
    assert entry["other_judges"]["fd_hed_vgg16"]["effect"] == pytest.approx(entry["effect"] / 2)
    assert (entry["effect"], entry["verdict"]) == (alone["effect"], alone["verdict"])
    assert "Against base in " in sentence and "another network finds it, too" in sentence


def test_every_undecided_claim_has_its_minimum_detectable_effect_beside_it(study: Study) -> None:
    found = summary(study, study.verdicts())
    assert found["minimum_detectable_effect"] == MDE_DEFINITION
    undecided = [claim for claim in found["claims"] if claim["verdict"] == "undecided"]
    assert undecided
    for claim in undecided:
        assert claim["minimum_detectable_effect"] > 0
        assert f"{claim['minimum_detectable_effect']:.1f} go undetected" in claim["sentence"]


def test_one_seed_has_no_interval_and_says_so(config: dict[str, Any], study_files: dict[str, list[Path]]) -> None:
    study_files["metrics"] = [path for path in study_files["metrics"] if "diffaug/seed0" in str(path)] + [
        path for path in study_files["metrics"] if "diffaug" not in str(path)
    ]
    sentence, entry = judged(collect(config, study_files), control="diffaug")
    assert entry["verdict"] == "undecided" and entry["control"]["n_seeds"] == 1
    assert "Against the control diffaug: 1 paired seed, an" in sentence


def test_a_claim_about_the_study_of_diffusion_models(study: Study) -> None:
    records = [
        {"seed": 0, "numbers": {"optimum": {"copied": 1.0}, "network": {"copied": 0.02}}},
        {"seed": 1, "numbers": {"optimum": {"copied": 0.99}}},
        {"seed": 1, "numbers": {"network": {"copied": 0.01}}},
        {"seed": 2, "numbers": {"optimum": {"copied": 1.0}}},
    ]
    fields = {"method": "diffusion", "stage": "diffusion", "metric": "copied", "minimum_effect": 0.1}
    with_numbers = replace(study, diffusion=records)
    sentence, entry = judged(with_numbers, arm="network", against="optimum", **fields)
    assert entry["effect"] == pytest.approx((0.98 + 0.98) / 2) and entry["n_seeds"] == 2
    assert entry["verdict"] == "supported" and entry["method"] == "diffusion" and entry["stage"] == "diffusion"
    assert math.isclose(entry["difference"], -0.98)
    assert "for network and" in sentence
    # Before the stage is finished
    sentence, entry = judged(study, arm="network", against="optimum", **fields)
    assert entry["verdict"] == "undecided" and entry["n_seeds"] == 0


@pytest.mark.parametrize("change", [{"arm": "net"}, {"metric": "copies"}])
def test_a_claim_about_unknown_numbers_of_diffusion_is_named(
    config: dict[str, Any], tmp_path: Path, change: dict[str, str]
) -> None:
    path = tmp_path / "diffusion.json"
    path.write_text('{"seed": 0, "numbers": {"optimum": {"copied": 1.0}, "network": {"copied": 0.1}}}')
    fields = FIELDS | {"id": "d", "stage": "diffusion", "metric": "copied", "minimum_effect": 0.1}
    config["claims"] = [fields | {"arm": "network", "against": "optimum"} | change]
    with pytest.raises(ValueError, match=r"claims\.d: no 'cop\w+' of 'net\w*', expected one of optimum: copied"):
        collect(config, {"diffusion": [path]})


def test_runs_of_different_devices_are_named(study: Study) -> None:
    assert "kind of device" not in judged(study)[0]
    for (name, _), job in study.jobs.items():
        if name == "aided":
            job.record["device"] = {"type": "cuda", "name": "NVIDIA H200"}
    sentence, _ = judged(study)
    assert "did not compute on one kind of device (cpu: base; cuda: aided), so the effect includes" in sentence


def test_a_measurement_on_another_device_is_named(study: Study) -> None:
    study.evaluations = [replace(e, device="cuda" if e.run == "base" else "cpu") for e in study.evaluations]
    assert "did not compute on one kind of device (cpu: aided, base; cuda: base)" in judged(study)[0]
