"""From planned jobs to rules: counts, order and edges of a small plan."""

import json
from pathlib import Path

from pipeline.planned_rules import rule_graph, write_rule_graph

PLAN = {
    "reproduce 1": ["report 1"],
    "report 1": ["train a", "train b", "probe b"],
    "train b": ["data 1", "probe b"],
    "probe b": ["train a"],
    "train a": ["data 1"],
    "data 1": [],
}


def rule_of(job: str) -> str:
    return job.split()[0]


def test_rules_by_their_first_possible_moment() -> None:
    graph = rule_graph(PLAN, rule_of)
    assert list(graph["jobs"].items()) == [("data", 1), ("train", 2), ("probe", 1), ("report", 1), ("reproduce", 1)]
    assert ("probe", "train") in graph["edges"] and ("train", "probe") in graph["edges"]


def test_only_a_whole_study_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rule_graph.json"
    write_rule_graph({job: before for job, before in PLAN.items() if job[:2] != "re"}, rule_of, path)
    assert not path.exists()
    write_rule_graph(PLAN, rule_of, path)
    found = json.loads(path.read_text())
    assert "reproduce" not in found["jobs"] and ["train", "report"] in found["edges"]
