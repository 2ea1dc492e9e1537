"""Reading results: what is found, and one sentence for everything that is wrong."""

import json
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import pytest
from made_up_study import HALF_NIMG, SECONDS

from pygan.report.collect import collect

Files = dict[str, list[Path]]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(config: dict[str, Any], files: Files, error: type[Exception] = ValueError) -> str:
    with pytest.raises(error) as caught:
        collect(config, files)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_everything_is_found(config: dict[str, Any], study_files: Files) -> None:
    study = collect(config, study_files)
    assert study.values("base", "fd_mobilenet_v2") == {0: 233.0, 1: 249.0, 2: 258.0}
    assert study.metric_names() == ["fd_mobilenet_v2", "kid_mobilenet_v2", "precision", "recall"]
    assert [group[0].subject for group in study.anchors_of("land")] == ["untrained", "pca_gaussian", "real"]
    assert len(study.jobs) == 12 and len(study.probes) == len(study.prunings) == 3
    assert study.stage_seconds["train"] == (82.5 + 83.5, 2)


def test_order_of_files_does_not_matter(config: dict[str, Any], study_files: Files) -> None:
    backward = {name: paths[::-1] for name, paths in study_files.items()}
    a, b = collect(config, study_files), collect(config, backward)
    assert a.verdicts() == b.verdicts()
    assert a.values("aided", "recall") == b.values("aided", "recall")


def test_curves_begin_with_the_run_that_is_continued(config: dict[str, Any], study_files: Files) -> None:
    study = collect(config, study_files)
    ticks = [tick["nimg"] for tick in study.curves("aided", 0)]
    assert ticks == sorted(ticks) and ticks[0] < HALF_NIMG < ticks[-1]
    parent = [tick for tick in study.stats["diffaug", 0] if tick["nimg"] <= HALF_NIMG]
    assert study.curves("aided", 0)[: len(parent)] == parent


def test_seconds_include_what_a_run_builds_on(config: dict[str, Any], study_files: Files) -> None:
    study = collect(config, study_files)
    start = next(tick["seconds"] for tick in study.stats["diffaug", 0] if tick["nimg"] >= HALF_NIMG)
    assert study.seconds_by_seed("aided")[0] == SECONDS["aided"] + start
    assert study.seconds_by_seed("ticket")[0] == SECONDS["ticket"] + SECONDS["diffaug"]
    assert study.seconds_ratio("ticket", "diffaug") == pytest.approx(
        sum(95 + 92 + 2 * seed for seed in range(3)) / sum(92 + seed for seed in range(3))
    )
    assert study.seconds_at("base", 0, 57600) == pytest.approx(80)
    assert study.seconds_at("aided", 0, HALF_NIMG) == pytest.approx(92 / 3, rel=0.1)


def test_intermediate_trainings_of_a_ticket_stay_apart(config: dict[str, Any], study_files: Files) -> None:
    final = next(path for path in study_files["run_json"] if "ticket/seed0" in str(path))
    between = Path(str(final).replace("ticket/seed0", "ticket@1/seed0"))
    between.parent.mkdir(parents=True)
    between.write_text(final.read_text())
    study = collect(config, study_files | {"run_json": [*study_files["run_json"], between]})
    assert study.ticket_search_seconds("ticket", 0) == SECONDS["diffaug"] + SECONDS["ticket"]


def test_nothing_but_the_configuration(config: dict[str, Any]) -> None:
    study = collect(config, {})
    assert {verdict.verdict for verdict in study.verdicts()} == {"undecided"}


def test_missing_benchmarks_are_tolerated(config: dict[str, Any], study_files: Files, tmp_path: Path) -> None:
    study = collect(config, study_files | {"benchmarks": [tmp_path / "none.tsv"]})
    assert study.stage_seconds == {}


@pytest.mark.parametrize("name", ["metrics", "run_json", "probe", "prune", "selected", "manifest", "anchors", "stats"])
def test_missing_and_malformed_files_are_named(config: dict[str, Any], study_files: Files, name: str) -> None:
    path = study_files[name][0]
    path.write_text('{"subject": "run", ')
    assert str(path) in refusal(config, study_files)
    path.write_text("[]")
    assert str(path) in refusal(config, study_files)
    path.unlink()
    assert str(path) in refusal(config, study_files, FileNotFoundError)


def test_missing_keys_and_wrong_values_are_named(config: dict[str, Any], study_files: Files) -> None:
    path = study_files["metrics"][0]
    before = path.read_text()
    edit(path, metrics={"fd_mobilenet_v2": {"value": None, "protocol": "p"}})
    assert f"{path}: metrics.fd_mobilenet_v2.value is None" in refusal(config, study_files)
    edit(path, metrics={"fd_mobilenet_v2": {"value": 1.0}})
    assert f"{path}: the key 'metrics.fd_mobilenet_v2.protocol' is missing" in refusal(config, study_files)
    path.write_text(before)
    job = study_files["run_json"][0]
    job.write_text(json.dumps({key: value for key, value in json.loads(job.read_text()).items() if key != "seconds"}))
    assert f"{job}: the key 'seconds' is missing" in refusal(config, study_files)


def test_two_files_for_one_place_are_refused(config: dict[str, Any], study_files: Files) -> None:
    edit(study_files["metrics"][1], seed=0)
    assert str(study_files["metrics"][1]) in refusal(config, study_files)


@pytest.mark.parametrize(
    ("key", "value"), [("network_sha256", "cd" * 32), ("resize", "area"), ("n_real", 10), ("n_gen", 99)]
)
@pytest.mark.parametrize("name", ["metrics", "anchors"])
def test_two_protocols_never_share_a_table(
    config: dict[str, Any], study_files: Files, name: str, key: str, value: Any
) -> None:
    path = study_files[name][-2]  # the last anchor is that of the real pictures
    edit(path, protocol=json.loads(path.read_text())["protocol"] | {key: value})
    message = refusal(config, study_files)
    assert "two protocols" in message and key in message and str(path) in message


def add_number(study_files: Files, name: str, records: Iterator[dict[str, Any]], **beside: Any) -> None:
    for path, record in zip(study_files["metrics"], records, strict=False):
        metrics = json.loads(path.read_text())["metrics"]
        edit(path, metrics=metrics | {name: {"value": 1.0, "protocol": "p", "record": record, **beside}})


def test_a_second_judge_has_a_protocol_of_its_own(config: dict[str, Any], study_files: Files) -> None:
    record = {"network": "hed", "network_sha256": "ef" * 32, "resize": "r", "n_real": 5, "n_gen": 4, "dtype": "float32"}
    add_number(study_files, "fd_hed", repeat(record | {"reference_split": "test"}))
    study = collect(config, study_files)
    assert "fd_hed" in study.metric_names() and study.copy_names() == []
    assert study.evaluations[0].record("fd_hed")["n_gen"] == 4 != study.evaluations[0].record("recall")["n_gen"]
    last = study_files["metrics"][-1]
    metrics = json.loads(last.read_text())["metrics"]
    other = metrics["fd_hed"] | {"record": metrics["fd_hed"]["record"] | {"network_sha256": "cd" * 32}}
    edit(last, metrics=metrics | {"fd_hed": other})
    assert "fd_hed was measured by two protocols" in refusal(config, study_files)


def test_numbers_about_copies_may_have_other_training_pictures(config: dict[str, Any], study_files: Files) -> None:
    records = ({"reference_split": "train", "n_real": 100 + i, "n_gen": 4} for i in count())
    add_number(study_files, "memorized_pictures", records, held_out=0.25, generated=0.5)
    study = collect(config, study_files)
    assert study.copy_names() == ["memorized_pictures"] and "memorized_pictures" not in study.metric_names()
    assert study.evaluations[0].metrics["memorized_pictures"].beside == {"held_out": 0.25, "generated": 0.5}


def test_two_protocol_lines_never_share_a_table(config: dict[str, Any], study_files: Files) -> None:
    path = study_files["metrics"][4]
    metrics = json.loads(path.read_text())["metrics"]
    edit(path, metrics=metrics | {"recall": metrics["recall"] | {"protocol": "k = 3"}})
    assert "recall was measured by two protocols" in refusal(config, study_files)


def test_real_pictures_may_differ_in_number_only(config: dict[str, Any], study_files: Files) -> None:
    path = study_files["anchors"][-1]
    protocol = json.loads(path.read_text())["protocol"]
    assert protocol["n_gen"] != 1500
    collect(config, study_files)
    edit(path, protocol=protocol | {"network_sha256": "cd" * 32})
    assert "network_sha256" in refusal(config, study_files)


def test_a_claim_compares_one_protocol_even_across_datasets(config: dict[str, Any], study_files: Files) -> None:
    for path in study_files["metrics"]:
        record = json.loads(path.read_text())
        if record["run"] == "base":
            edit(path, dataset="sea", protocol=record["protocol"] | {"n_real": 700})
    assert "fd_mobilenet_v2 was measured by two protocols" in refusal(config, study_files)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"arm": "diffuag"}, "claims.diffaug.arm: got 'diffuag'"), ({"wrong": 1}, "claims.diffaug: ")],
)
def test_wrong_claims_are_named(config: dict[str, Any], change: dict[str, Any], expected: str) -> None:
    config["claims"] = [config["claims"][0] | change]
    assert expected in refusal(config, {})


def test_required_keys_of_the_configuration() -> None:
    assert "'seeds'" in refusal({"name": "x", "runs": {}}, {})
