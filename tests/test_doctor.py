import json
import platform
from types import SimpleNamespace

import pytest
import torch

from pygan import doctor, ops


@pytest.fixture(scope="module")
def facts() -> dict:
    return doctor.report()


def test_report_is_json(facts: dict) -> None:
    assert json.loads(json.dumps(facts)) == facts


def test_report_says_which_operators_run_and_why(facts: dict) -> None:
    assert facts["ops"]["backend"] == ops.backend()
    assert facts["ops"]["reason"] == ops.backend_reason()
    assert ("csrc_digest" in facts["ops"]) == (ops.backend() == "native")


def test_report_has_every_topic(facts: dict) -> None:
    assert list(facts) == ["versions", "platform", "compiler", "cuda", "ops", "assets"]
    assert facts["versions"]["torch"]
    assert all({"file", "state"} <= set(asset) for asset in facts["assets"])


def test_text_has_a_line_per_fact(facts: dict) -> None:
    lines = doctor.text(facts).splitlines()
    assert len(lines) == len(facts) + sum(map(len, facts.values()))
    assert f"  backend: {ops.backend()}" in lines
    assert not [line for line in lines if "{" in line or "[" in line]


def test_platform_has_what_a_report_of_a_fault_needs(facts: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    gigabytes, unit = facts["platform"]["free disk"].split(" ", 2)[:2]
    assert float(gigabytes) > 0 and unit == "GB"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert doctor._platform()["supported"] == "untested: the tests run on Linux x86_64"


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="H200", total_memory=150e9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert doctor._gpus() == ["H200 (150 GB, 9.0)"]
    assert doctor.text({"cuda": {"visible GPUs": doctor._gpus()}}) == "cuda\n  visible GPUs: H200 (150 GB, 9.0)"
    assert doctor.text({"cuda": {"visible GPUs": []}}) == "cuda\n  visible GPUs: none"


def test_missing_command_is_none() -> None:
    assert doctor._first_line("no-such-command-of-pygan", "--version") is None
