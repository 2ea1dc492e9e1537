import json

import pytest

from pygan import doctor, ops


@pytest.fixture(scope="module")
def facts() -> dict:
    return doctor.report()


def test_report_is_json(facts: dict) -> None:
    assert json.loads(json.dumps(facts)) == facts


def test_report_says_which_operators_run_and_why(facts: dict) -> None:
    assert facts["ops"]["backend"] == ops.backend()
    assert facts["ops"]["reason"] == ops.backend_reason()
    assert (facts["ops"]["build"] is None) == (ops.backend() == "reference")


def test_report_has_every_topic(facts: dict) -> None:
    assert list(facts) == ["versions", "platform", "compiler", "cuda", "ops", "assets"]
    assert facts["versions"]["torch"]
    assert all({"file", "state"} <= set(asset) for asset in facts["assets"])


def test_text_has_a_line_per_fact(facts: dict) -> None:
    lines = doctor.text(facts).splitlines()
    assert len(lines) == len(facts) + sum(map(len, facts.values()))
    assert f"  backend: {ops.backend()}" in lines


def test_missing_command_is_none() -> None:
    assert doctor._first_line("no-such-command-of-pygan", "--version") is None
