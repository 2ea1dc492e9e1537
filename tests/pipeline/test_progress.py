"""What is told of a running study: counts, minutes left, and when the report is rendered again."""

import json
import logging
import sys
from enum import Enum
from pathlib import Path

import pytest

from pipeline.progress import Estimate, Progress, Refresh, job_name, minutes, planned


class Event(Enum):
    """Names as Snakemake's."""

    JOB_STARTED = "job_started"
    JOB_FINISHED = "job_finished"
    SHELLCMD = "shellcmd"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(event: Event, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    made.__dict__ |= {"event": event, **fields}
    return made


def test_events_of_snakemake_become_lines() -> None:
    jobs = {1: "train_base", 2: "train_base", 3: "evaluate base", 4: "evaluate base", 5: "report"}
    left, said, finished, clock = dict(jobs), [], [], Clock()
    expected = {"train_base": 200.0, "evaluate base": 20.0, "report": 20.0}
    progress = Progress(lambda: list(left.items()), Estimate(expected, 2), said.append, finished.append, clock)
    progress.begin("Trainings compute on the CPU.")
    assert said == [
        "Trainings compute on the CPU.",
        "5 jobs to do, about 4 minutes left",
    ]  # (2 x 200 + 2 x 20 + 20) / 2 = 230 s

    progress.emit(record(Event.JOB_STARTED, jobs=[1, 2]))
    clock.now += 300.0
    progress.emit(record(Event.JOB_FINISHED, job_id=1))
    # Half as fast again: the other one should end now, 5 % are left of it at least; 3 x 20 x 1.5 follow, on two cores
    assert said[-1] == f"1 of 5 jobs, about {minutes((0.05 * 300 + 90) / 2)} left"
    left.pop(1)
    progress.emit(record(Event.SHELLCMD))
    progress.emit(record(Event.JOB_FINISHED, job_id=2))
    left.pop(2)
    for number in (3, 4, 5):
        progress.emit(record(Event.JOB_STARTED, jobs=[number]))
        clock.now += 30.0
        progress.emit(record(Event.JOB_FINISHED, job_id=number))
        left.pop(number)
    assert said[-1] == "5 of 5 jobs"
    assert finished == list(jobs.values())


def test_jobs_that_a_checkpoint_adds_count() -> None:
    left, said = {1: "probe a"}, []
    progress = Progress(lambda: list(left.items()), Estimate({}, 1), said.append)
    progress.emit(record(Event.JOB_STARTED, jobs=[1]))
    left[2] = "train_a"
    progress.emit(record(Event.JOB_FINISHED, job_id=1))
    assert said == ["1 of 2 jobs"]  # nothing tells how long a training takes


def test_a_result_that_was_found_finished_is_no_measure_of_speed() -> None:
    estimate = Estimate({"train_a": 100.0, "train_b": 100.0}, 1)
    estimate.add("train_a", 3.0)
    assert estimate.of("train_b") == 100.0
    estimate.add("train_a", 150.0)
    assert estimate.of("train_b") == pytest.approx(150.0) and estimate.of("train_a") == 150.0


def test_without_a_plan_jobs_of_the_same_rule_tell() -> None:
    estimate = Estimate({}, 2)
    assert estimate.left([("select b", 0.0)]) is None
    estimate.add("select a", 10.0)
    assert estimate.left([("select b", 0.0), ("select c", 4.0)]) == 10.0  # (10 + 6) / 2 would be 8: b takes 10


def test_a_broken_listener_does_not_stop_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> list[tuple[int, str]]:
        raise RuntimeError("no jobs")

    Progress(broken, Estimate({}, 1), print).emit(record(Event.JOB_FINISHED, job_id=1))
    assert "no jobs" in capsys.readouterr().err


def test_names_and_plans(tmp_path: Path) -> None:
    assert job_name("evaluate", {"run": "base", "seed": "0"}) == "evaluate base"
    assert job_name("anchor", {"anchor": "untrained", "seed": "0"}) == "anchor untrained"
    assert job_name("train_base", {"seed": "1"}) == "train_base"
    path = tmp_path / "plan.json"
    assert planned(path) == {}
    for wrong in ("[1]", "{", '{"seconds": {"a": null}}', '{"seconds": 3}'):
        path.write_text(wrong)
        assert planned(path) == {}
    path.write_text(json.dumps({"seconds": {"train_a": 3}}))
    assert planned(path) == {"train_a": 3.0}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "10 seconds"), (44, "40 seconds"), (70, "1 minute"), (2460, "41 minutes"), (7200, "2.0 hours")],
)
def test_minutes(seconds: float, words: str) -> None:
    assert minutes(seconds) == words


def test_the_report_is_rendered_after_evaluations_and_not_too_often(tmp_path: Path) -> None:
    refresh = Refresh(tmp_path)
    refresh._command = [sys.executable, "-c", f"open({str(tmp_path / 'calls')!r}, 'a').write('x')"]
    refresh("train_base")
    assert refresh._process is None
    refresh("evaluate base")
    refresh._process.wait()
    refresh("evaluate base")
    refresh._process.wait()
    assert (tmp_path / "calls").read_text() == "x"
