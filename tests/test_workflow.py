"""The workflow: its style, its plans, and which jobs each kind of edit makes necessary.

The stages are stand-ins (tests/fake_stages.py); planning, digests, runner and Snakemake are the real ones.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from fake_stages import ROOT, install

pytest.importorskip("snakemake")

EVALUATED = {"evaluate base", "evaluate ticket", "evaluate vision_aided"}
ANCHORS = {"anchor untrained", "anchor pca_gaussian", "anchor_real"}


def snakemake(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder.parent / "cache"), "COLUMNS": "400"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def jobs(output: str) -> Counter[str]:
    """The jobs of a plan or run, as "rule" and the name of its run, data set or anchor."""
    found: Counter[str] = Counter()
    for block in re.split(r"\n(?=\[|(?:local)?(?:rule|checkpoint) )", output):
        if not (match := re.search(r"^(?:local)?(?:rule|checkpoint) (\w+):$", block, flags=re.M)):
            continue
        wildcards = dict(re.findall(r"(\w+)=([^,\s]+)", "".join(re.findall(r"wildcards: (.*)", block))))
        subject = next((wildcards[key] for key in ("run", "anchor", "dataset") if key in wildcards), "")
        found[f"{match[1]} {subject}".strip()] += 1
    return found


def plan(folder: Path) -> set[str]:
    return set(jobs(snakemake(folder, "--dry-run"))) - {"reproduce"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose jobs are all done, in a folder whose name is no help."""
    folder = install(tmp_path_factory.mktemp("workflow") / "it's a stüdy")
    (folder / "config" / "smoke.yaml").replace(folder / "config" / "config.yaml")
    snakemake(folder, "--cores", "4", "reproduce")
    return folder


@pytest.fixture
def study(finished: Path) -> Path:
    """The finished study; edits of its files are undone afterwards, results are not."""
    kept = {path: path.read_bytes() for path in sources(finished)}
    yield finished
    for path in sources(finished):
        if path not in kept:
            path.unlink()
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def sources(folder: Path) -> list[Path]:
    folders = ("pygan", "pipeline", "config", "csrc")
    return [path for name in folders for path in (folder / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]


def change_code(path: Path) -> None:
    """An edit that could matter: one more statement at the end of the file."""
    path.write_text(path.read_text() + "\n_EDITED = 1\n")


def configuration(study: Path) -> dict:
    """The study file as a mapping whose parts are no longer shared by anchors."""
    return json.loads(json.dumps(yaml.safe_load((study / "config" / "config.yaml").read_text())))


def configure(study: Path, values: dict) -> None:
    (study / "config" / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def test_rules_are_linted_and_formatted() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # rules have no conda environment: they run in the one that Snakemake runs in
    found = {line for line in re.findall(r"^ +\* (.*)$", linted.stdout + linted.stderr, flags=re.M)}
    assert found == {"Specify a conda environment or container for each rule.:"}
    command = [sys.executable, "-m", "snakefmt", "--check", "workflow"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.name, marks=() if path.name in ("config.yaml", "smoke.yaml") else pytest.mark.slow)
        for path in sorted((ROOT / "config").glob("*.yaml"))
    ],
)
def test_every_shipped_study_is_planned(name: str, tmp_path: Path) -> None:
    folder = install(tmp_path / "tree")
    found = jobs(snakemake(folder, "--dry-run", "--configfile", f"config/{name}"))
    study = yaml.safe_load((folder / "config" / name).read_text())
    assert found["theory"] == ("theory" in study)
    for run, settings in study.get("runs", {}).items():
        assert found[f"evaluate {run}"] == len(study["seeds"]) * settings.get("evaluate", True)
    section = study.get("diffusion", {})
    for subject in ("toy", "exact"):
        asked = bool(section) and section.get(subject, {} if subject == "toy" else None) is not None
        assert found[f"diffusion_{subject}"] == asked * len(study["seeds"])
    for run in section.get("runs", []):
        assert found[f"diffusion_run {run}"] == len(study["seeds"])
    assert found["report"] == 1


@pytest.mark.slow
def test_a_config_file_replaces_the_default_one(finished: Path, tmp_path: Path) -> None:
    values = configuration(finished)
    values["runs"] = {"base": values["runs"]["base"]}
    values["claims"], values["output"] = [], "results/other"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values))
    found = jobs(snakemake(finished, "--dry-run", "--configfile", str(tmp_path / "other.yaml")))
    assert {"train_base", "evaluate base", "report"} <= set(found)
    assert not any("ticket" in job or "vision_aided" in job for job in found)


@pytest.mark.slow
@pytest.mark.parametrize("renamed", ["", " as pygan_*"])
def test_the_workflow_is_a_module_of_another_one(finished: Path, tmp_path: Path, renamed: str) -> None:
    """Its jobs find the stages, which lie beside it and not in the working directory."""
    (tmp_path / "Snakefile").write_text(
        f'configfile: "study.yaml"\n'
        f"rule everything:\n    input: 'results/smoke/report/index.html'\n"
        f"module pygan:\n    snakefile: {str(finished / 'workflow' / 'Snakefile')!r}\n    config: config\n"
        f"use rule * from pygan{renamed}\n"
    )
    shutil.copy(finished / "config" / "config.yaml", tmp_path / "study.yaml")
    snakemake(tmp_path, "--cores", "4")
    assert (tmp_path / "results" / "smoke" / "report" / "index.html").is_file()


@pytest.mark.slow
def test_the_target_may_follow_the_study(study: Path) -> None:
    """Snakemake takes every word after --configfile for a file."""
    assert jobs(snakemake(study, "--dry-run", "--configfile", "config/quick.yaml", "reproduce"))["evaluate base"] == 2


@pytest.mark.slow
def test_a_study_that_lacks_something_does_not_start(study: Path, tmp_path: Path) -> None:
    values = configuration(study)
    values["datasets"]["land"]["source"] = {"kind": "folder", "path": str(tmp_path / "nowhere")}
    values["output"] = str(tmp_path / "results")
    configure(study, values)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    refused = subprocess.run(command, cwd=study, capture_output=True, text=True, check=False)
    assert refused.returncode == 66
    assert f"error: {tmp_path / 'nowhere'}: there is no such folder or zip (source.path)" in refused.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_rounds_and_seeds_unroll(study: Path) -> None:
    values = configuration(study)
    values["seeds"], values["output"] = [0, 1], "results/rounds"
    values["runs"]["ticket"]["ticket"]["rounds"] = 3
    configure(study, values)
    found = jobs(snakemake(study, "--dry-run"))
    assert found["prune_round ticket"] == 6
    assert found["train_ticket_round1"] == found["train_ticket_round2"] == found["train_ticket"] == 2


@pytest.mark.slow
def test_controls_read_the_last_mask_of_the_ticket_they_follow(study: Path) -> None:
    values = configuration(study)
    values["output"], values["runs"]["ticket"]["ticket"]["rounds"] = "results/controls", 2
    for name, ticket in (
        ("blind", {"kind": "random", "found_in": "base", "like": "ticket"}),
        ("again", {"kind": "transfer", "mask_of": "ticket"}),
        ("elsewhere", {"kind": "transfer", "path": "config/config.yaml"}),
    ):
        values["runs"][name] = values["runs"]["ticket"] | {"ticket": ticket}
    configure(study, values)
    output = snakemake(study, "--dry-run", "--printshellcmds")
    found = jobs(output)
    assert found["prune_round ticket"] == 2
    for name in ("blind", "again", "elsewhere"):
        assert found[f"prune_round {name}"] == found[f"train_{name}"] == 1
    assert output.count("like=results/controls/masks/ticket/seed0/round2/mask.safetensors") == 2
    assert output.count("like=config/config.yaml") == 1


@pytest.mark.slow
def test_a_round_reruns_for_its_own_share_and_those_before(study: Path) -> None:
    """More rounds, or another share in the last one, leave the rounds before alone."""
    values = configuration(study)
    values["output"], values["runs"] = "results/shares", {name: values["runs"][name] for name in ("base", "ticket")}
    values["claims"], ticket = [], values["runs"]["ticket"]["ticket"]
    ticket["rounds"] = 2
    configure(study, values)
    snakemake(study, "--cores", "4", "reproduce")
    rest = {"prune_round ticket", "train_ticket", "select ticket", "evaluate ticket", "report"}
    ticket |= {"fractions": [0.2, 0.3]}
    configure(study, values)
    assert plan(study) == rest
    ticket |= {"fractions": None, "rounds": 3}
    configure(study, values)
    found = jobs(snakemake(study, "--dry-run"))
    assert found["prune_round ticket"] == 1 and found["train_ticket_round1"] == 0 and found["train_ticket"] == 1


@pytest.mark.slow
def test_stages_follow_the_best_snapshot_and_survive_an_interruption_between_them(study: Path) -> None:
    values = configuration(study)
    values["output"] = "results/stages"
    first = values["runs"]["vision_aided"]
    second = first | {"continues": {"run": "vision_aided", "nimg": "best", "reset": ["optimizers", "augment"]}}
    second["discriminators"] = [{"kind": "plain"}, {"kind": "vision_aided", "count": 2}]
    values["runs"] = {"base": values["runs"]["base"], "vision_aided": first, "second": second}
    configure(study, values)
    before = jobs(snakemake(study, "--cores", "2", "results/stages/train/vision_aided/seed0/run.json"))
    assert {"train_base", "probe vision_aided", "train_vision_aided"} <= set(before)
    after = jobs(snakemake(study, "--cores", "2", "results/stages/train/second/seed0/run.json"))
    assert {"select vision_aided", "probe second", "train_second"} <= set(after)
    assert not {"train_base", "probe vision_aided", "train_vision_aided"} & set(after)
    log = (study / "results" / "stages" / "logs" / "probe" / "second_seed0.log").read_text()
    assert "start in" in log


@pytest.mark.slow
def test_snakemakes_own_report_renders_with_captions(study: Path) -> None:
    snakemake(study, "--report", "report.html")
    text = (study / "report.html").read_text()
    assert "Image generators trained on little data" in text
    for caption in (
        "Real training pictures of the data set",
        "Pictures drawn from the moving average",
        "against the test split, with the",
        "a verdict per claim with its interval",
        "The numbers of the report as JSON",
    ):
        assert caption in text, caption


def test_nothing_to_do_when_nothing_changed(study: Path) -> None:
    assert plan(study) == set()


def test_comments_docstrings_touches_and_unused_methods_rerun_nothing(study: Path) -> None:
    for name in ("training/gan.py", "pruning/lottery.py", "metrics/prdc.py", "data/store.py"):
        path = study / "pygan" / name
        path.write_text("# a comment\n" + path.read_text())
    errors = study / "pygan" / "errors.py"
    errors.write_text(errors.read_text().replace('"""', '"""Once more: ', 1))
    change_code(study / "pygan" / "networks" / "sngan.py")
    kinds = study / "pygan" / "regularizers" / "__init__.py"
    kinds.write_text(kinds.read_text().replace('KINDS = ("r1",', 'KINDS = ("r1", "another",'))
    for path in sources(study):
        path.touch()
    for path in (study / "results").rglob("*.lmdb"):
        path.touch()
    configure(study, dict(reversed(configuration(study).items())))
    assert plan(study) == set()


@pytest.mark.slow
def test_pruning_code_reruns_pruning_and_what_follows(study: Path) -> None:
    change_code(study / "pygan" / "pruning" / "lottery.py")
    assert plan(study) == {"prune_round ticket", "train_ticket", "select ticket", "evaluate ticket", "report"}


@pytest.mark.slow
def test_a_reported_metric_reruns_evaluations_and_report(study: Path) -> None:
    change_code(study / "pygan" / "metrics" / "prdc.py")
    assert plan(study) == EVALUATED | ANCHORS | {"report"}


@pytest.mark.slow
def test_the_selecting_metric_reruns_selection_too(study: Path) -> None:
    change_code(study / "pygan" / "metrics" / "kid.py")
    selected = {"select base", "select ticket", "select vision_aided"}
    assert plan(study) == selected | EVALUATED | ANCHORS | {"report"}


def test_a_report_edit_reruns_the_report(study: Path) -> None:
    change_code(study / "pygan" / "report" / "tables.py")
    assert plan(study) == {"report"}


@pytest.mark.slow
def test_a_new_run_runs_alone(study: Path) -> None:
    values = configuration(study)
    values["runs"]["diffaug"] = values["runs"]["base"] | {"augment": {"kind": "diffaug"}}
    configure(study, values)
    assert plan(study) == {"train_diffaug", "select diffaug", "evaluate diffaug", "report"}
    values["runs"]["diffaug"]["evaluate"] = False
    configure(study, values)
    assert plan(study) == {"train_diffaug", "report"}


@pytest.mark.slow
def test_a_file_to_begin_with_is_an_input_of_its_run_alone(study: Path) -> None:
    values = configuration(study)
    values["runs"]["transferred"] = values["runs"]["base"] | {"init_from": "other's network.safetensors"}
    configure(study, values)
    network = study / "other's network.safetensors"
    network.write_text("one")
    try:
        output = snakemake(study, "--dry-run", "--printshellcmds")
        assert """transfer='other'"'"'s network.safetensors'""" in output
        assert set(jobs(output)) - {"reproduce"} == {f"{stage} transferred" for stage in ("select", "evaluate")} | {
            "train_transferred",
            "report",
        }
    finally:
        network.unlink()


@pytest.mark.slow
def test_theory_joins_a_study_alone(study: Path) -> None:
    values = configuration(study)
    values["theory"] = {"images": {"dataset": "land"}}
    configure(study, values)
    assert plan(study) == {"theory", "report"}


@pytest.mark.slow
def test_diffusion_joins_a_study_alone(study: Path) -> None:
    values = configuration(study)
    values["diffusion"] = {"exact": {"dataset": "land", "sizes": [10]}, "runs": ["base"]}
    configure(study, values)
    everything = {"diffusion_toy", "diffusion_exact", "diffusion_run base"}
    assert plan(study) == {*everything, "report"}
    snakemake(study, "--cores", "4", "reproduce")
    assert plan(study) == set()
    values["diffusion"]["toy"] = {"points": 16}  # each subject knows its own part
    configure(study, values)
    assert plan(study) == {"diffusion_toy", "report"}


@pytest.mark.slow
def test_swapped_values_are_seen(study: Path) -> None:
    values = configuration(study)
    training = values["runs"]["ticket"]["training"]
    training["tick_nimg"], training["checkpoint_nimg"] = training["checkpoint_nimg"], training["tick_nimg"]
    configure(study, values)
    assert plan(study) == {"train_ticket", "select ticket", "evaluate ticket", "report"}


@pytest.mark.slow
def test_a_changed_kernel_reruns_training_but_no_data(study: Path) -> None:
    kernel = next(path for path in sources(study) if path.suffix == ".cpp")
    kernel.write_text(kernel.read_text() + "\n")
    found = plan(study)
    assert {"train_base", "train_ticket", "probe vision_aided", "report"} | EVALUATED <= found
    assert not {job for job in found if job.startswith(("prepare_data", "reference"))}


@pytest.mark.slow
def test_a_method_reruns_the_runs_that_use_it(study: Path) -> None:
    change_code(study / "pygan" / "augment" / "diffaug.py")
    found = plan(study)
    assert {"train_ticket", "train_vision_aided"} <= found
    assert not found & {"train_base", "prune_round ticket", "probe vision_aided"}


@pytest.mark.slow
def test_an_unchanged_answer_of_the_probe_ends_the_rerun(study: Path) -> None:
    network = study / "pygan" / "features" / "hed_vgg16.py"
    before = network.read_text()
    change_code(network)
    found = jobs(snakemake(study, "--cores", "4"))
    assert "probe vision_aided" in found
    assert "train_vision_aided" not in found
    log = study / "results" / "smoke" / "logs" / "evaluate" / "vision_aided_seed0.log"
    assert "nothing to compute" in log.read_text() or "evaluate vision_aided" not in found
    network.write_text(before)
    snakemake(study, "--cores", "4")


@pytest.mark.slow
def test_a_reverted_edit_computes_nothing_again(study: Path) -> None:
    gan = study / "pygan" / "training" / "gan.py"
    before = gan.read_text()
    change_code(gan)
    snakemake(study, "--cores", "4")
    gan.write_text(before)
    assert "train_base" in jobs(snakemake(study, "--cores", "4"))
    for log in (study / "results" / "smoke" / "logs" / "train").glob("*.log"):
        assert "finished before, nothing to compute" in log.read_text()


@pytest.mark.slow
def test_lost_results_come_back_from_the_work_folders(study: Path) -> None:
    shutil.rmtree(study / "results" / "smoke" / "train")
    snakemake(study, "--cores", "4")
    for log in (study / "results" / "smoke" / "logs" / "train").glob("*.log"):
        assert "finished before, nothing to compute" in log.read_text()
