"""The plan of a study: jobs and seconds by arithmetic, and step times that are measured in the loop."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pygan import plan as planning
from pygan import speeds
from pygan.cli import app
from pygan.config import Study, check, parse_study
from pygan.plan import METRICS, PREPARE, PROBE, PRUNE, REPORT, plan, text
from pygan.speeds import Speeds

ROOT = Path(__file__).resolve().parents[1]
SPEEDS = Speeds(start=2.0, judged=(100.0,), step={"base": 0.1, "ticket": 0.1, "vision_aided": 0.3})


@pytest.fixture
def study() -> Study:
    """The smoke study with three seeds and a second round of its ticket: 20 images of 16 a step."""
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    values["seeds"] = [0, 1, 2]
    values["runs"]["ticket"]["ticket"]["rounds"] = 2
    made = parse_study(values)
    check(made)
    return made


def test_every_job_is_counted_with_its_seconds(study: Study) -> None:
    made = plan(study, SPEEDS, cores=2)
    jobs = {job.name: (job.n, job.seconds) for job in made.jobs}
    dense, aided = 2 + 640 / 16 * 0.1, 2 + (640 - 320) / 16 * 0.3
    measured = 2 + 100 / 100 + METRICS
    assert jobs == {
        "prepare_data land": (1, 2 + PREPARE),
        "reference land": (1, 2 + planning.PICTURES / 100),
        "train_base": (3, pytest.approx(dense)),
        "train_ticket_round1": (3, pytest.approx(dense)),
        "train_ticket": (3, pytest.approx(dense)),
        "train_vision_aided": (3, pytest.approx(aided)),
        "probe vision_aided": (3, 2 + 4 * PROBE),
        "prune_round ticket": (6, 2 + PRUNE),
        "select base": (3, 2 + 2 * 50 / 100),
        "select ticket": (3, 2 + 2 * 50 / 100),
        "select vision_aided": (3, 2 + 50 / 100),  # one snapshot is its own
        **{f"evaluate {run}": (3, measured) for run in study.runs},
        "anchor untrained": (3, measured),
        "anchor pca_gaussian": (3, measured),
        "anchor_real": (1, 2 + METRICS),
        "report": (1, REPORT),
    }
    total = sum(n * seconds for n, seconds in jobs.values())
    assert made.core_seconds == pytest.approx(total)
    assert made.wall_seconds == pytest.approx(total / 2)
    # With as many cores as jobs, the chain that waits for itself decides
    shared = 2 + PREPARE + measured + REPORT
    aided_chain = shared + dense + 2 + 4 * PROBE + aided + 2.5
    ticket_chain = shared + dense + 2 * dense + 2 * (2 + PRUNE) + 3
    assert plan(study, SPEEDS, cores=99).wall_seconds == pytest.approx(max(aided_chain, ticket_chain))


def test_what_is_not_measured_takes_no_time(study: Study) -> None:
    values = study.plain() | {"claims": []}
    dense = len(plan(study, SPEEDS, cores=2).jobs)
    values["runs"]["base"]["evaluate"] = False
    jobs = {job.name for job in plan(parse_study(values), SPEEDS, cores=2).jobs}
    assert len(jobs) == dense - 2 and not {"select base", "evaluate base"} & jobs
    values["runs"]["vision_aided"]["continues"]["nimg"] = "best"
    jobs = {job.name for job in plan(parse_study(values), SPEEDS, cores=2).jobs}
    assert "select base" in jobs and "evaluate base" not in jobs


def test_earlier_times_come_first_except_those_of_trainings(study: Study, tmp_path: Path) -> None:
    for path, seconds in {
        "train/base_seed0.tsv": 999,
        "evaluate/base_seed0.tsv": 1,
        "evaluate/base_seed1.tsv": 17,
        "anchor/real.tsv": 4,
        "reference/land_judge0.tsv": 8,
        "reference/land_judge1.tsv": 6,
        "prune_round/ticket_seed0_round1.tsv": 5,
    }.items():
        table = tmp_path / "benchmarks" / path
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")
    jobs = {job.name: job.seconds for job in plan(study, SPEEDS, 2, tmp_path).jobs}
    assert (jobs["evaluate base"], jobs["anchor_real"], jobs["prune_round ticket"]) == (17, 4, 5)
    assert jobs["train_base"] == pytest.approx(2 + 4) and jobs["reference land"] == 8


def test_the_size_of_a_prepared_data_set_and_every_judge_count(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    also = {"network": {"kind": "efficientnet_lite0"}, "metrics": [{"kind": "kid"}], "n_gen": 50, "shared": True}
    values["evaluate"]["also"] = [also]
    manifest = tmp_path / "data/land/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"splits": {"train": {"n": 400}, "test": {"n": 100}}}))
    two_judges = Speeds(start=2.0, judged=(100.0, 10.0), step=SPEEDS.step)
    jobs = {job.name: (job.n, job.seconds) for job in plan(parse_study(values), two_judges, 2, tmp_path).jobs}
    assert jobs["reference land"] == (2, 2 + (5 + 50) / 2)
    assert jobs["evaluate base"] == (1, 2 + METRICS + 1 + METRICS + 5)


def test_the_words(study: Study) -> None:
    made = plan(study, SPEEDS, cores=2)
    words = text(made)
    assert words.startswith(f"smoke test: {sum(job.n for job in made.jobs)} jobs on 2 cores, about ")
    assert "train             12" in words and "vision_aided 300" in words
    plain = made.plain()
    assert plain["seconds"]["train_vision_aided"] == pytest.approx(8.0) and plain["cores"] == 2


def test_gpus_bound_the_jobs_that_compute_on_them(study: Study) -> None:
    on_cpu, on_one, on_two = (plan(study, SPEEDS, cores=8, gpus=gpus) for gpus in (0, 1, 2))
    busy = sum(job.n * job.seconds for job in on_one.jobs if job.stage not in ("prepare_data", "prune_round", "report"))
    assert on_cpu.wall_seconds == max(on_cpu.core_seconds / 8, on_cpu.chain)
    assert on_one.wall_seconds == pytest.approx(max(busy, on_one.chain))
    assert on_two.wall_seconds == pytest.approx(max(busy / 2, on_two.chain))
    assert " jobs on 8 cores and 2 GPUs, about " in text(on_two)


def test_a_training_of_several_processes_takes_several_gpus(study: Study) -> None:
    alone, both = (plan(parse_study(study.plain() | {"processes": n}), SPEEDS, cores=8, gpus=2) for n in (1, 2))
    trainings = sum(job.n * job.seconds for job in alone.jobs if job.stage == "train")
    assert both.gpu_seconds == pytest.approx(alone.gpu_seconds + trainings)


def test_runs_that_differ_in_their_length_alone_are_measured_once(study: Study) -> None:
    values = study.plain()
    base, ticket, aided = (speeds._case(values, run) for run in ("base", "ticket", "vision_aided"))
    assert base != ticket != aided  # augmented, aided
    assert [entry["kind"] for entry in aided["frozen"]] == ["efficientnet_lite0"]
    values["runs"]["longer"] = {
        **values["runs"]["base"],
        "continues": {"run": "base", "nimg": 640},
        "training": {**values["runs"]["base"]["training"], "total_nimg": 6400, "snapshots": [6400]},
    }
    assert speeds._case(values, "longer") == base


def test_a_step_is_measured_in_the_loop() -> None:
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    values["runs"] = {"base": values["runs"]["base"]}
    values["runs"]["base"]["base"] |= {"z_dim": 8, "g_channels": 4, "d_channels": 4}
    values |= {"claims": [], "bank": []}
    assert 0 < speeds._step_seconds(speeds._case(parse_study(values).plain(), "base")) < 60


def test_the_verb_prints_the_plan_and_writes_it_for_the_workflow(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(planning, "measure", lambda study, cores, gpus, say: SPEEDS)
    monkeypatch.setattr(planning, "check_files", lambda study: None)
    path = tmp_path / "study.yaml"
    path.write_text((ROOT / "config/smoke.yaml").read_text().replace("results/smoke", str(tmp_path / "results")))
    result = CliRunner().invoke(app, ["plan", str(path), "--cores", "2"])
    assert result.exit_code == 0, result.output
    assert "smoke test: " in result.output and " on 2 cores, about " in result.output
    assert json.loads((tmp_path / "results/plan.json").read_text())["seconds"]["train_base"] == pytest.approx(6.0)


@pytest.mark.slow
def test_this_machine_is_measured_by_processes(study: Study) -> None:
    said: list[str] = []
    measured = speeds.measure(study, 2, 0, said.append)
    assert said == ["measuring 3 kinds of training step on this machine ..."]
    assert set(measured.step) == set(study.runs)
    assert measured.start > 0 and measured.judged[0] > 0 and all(seconds > 0 for seconds in measured.step.values())
