"""The study file: what is accepted, and what is found before anything runs."""

import fcntl
import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from edited_study import ROOT, Edit, aided, at, denoiser, heads_alone, smoke_study, stages
from PIL import Image
from typer.testing import CliRunner

from pipeline import schema
from pygan import assets, config
from pygan.checkpoint import write_tensors
from pygan.cli import app
from pygan.config import check_files, load
from pygan.config_measurements import measured_names
from pygan.errors import ConfigError, DataError, MissingInput

SHIPPED = sorted((ROOT / "config").rglob("*.yaml"))


@pytest.fixture
def smoke() -> dict:
    return smoke_study()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_valid(path: Path) -> None:
    study = load(path)
    assert study.runs or study.theory or study.diffusion
    assert config.parse_study(study.plain()) == study


def test_the_default_study_has_a_claim_for_every_method_and_three_seeds() -> None:
    study = load(ROOT / "config" / "config.yaml")
    methods = {"vision_aided", "reg_dgm", "lottery", "feature_adversary", "group_spectral", "diffusion"}
    assert methods <= {claim.method for claim in study.claims} and len(study.seeds) >= 3


def test_the_schema_file_is_the_one_of_the_code() -> None:
    assert schema.TARGET.read_text() == schema.text(), "run `python -m pipeline.schema`"
    assert next(iter(yaml.safe_load(schema.TARGET.read_text()))) == "$schema"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in ("config", "smoke") else pytest.mark.slow) for path in SHIPPED],
    ids=lambda path: path.stem,
)
def test_snakemake_fills_in_the_same_defaults(path: Path) -> None:
    utils = pytest.importorskip("snakemake.utils")
    values = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    utils.validate(values, str(schema.TARGET))
    assert values == load(path).plain()


@pytest.mark.parametrize("family", ["bgcf", "bgcfn", "bgcfnc"])
def test_the_image_space_filter_needs_pictures_wider_than_its_reach(smoke: dict, family: str) -> None:
    smoke["runs"]["ticket"]["augment"] = {"kind": "ada", "family": family}
    config.check(config.parse_study(smoke))  # at 32 pixels
    smoke["datasets"]["land"]["resolution"] = 16
    words = f"^runs.ticket: augment.family: {family} does not fit the data: .* more than 21 pixels a side"
    with pytest.raises(ConfigError, match=words):
        config.check(config.parse_study(smoke))


def test_path_lengths_in_an_intermediate_latent_space(smoke: dict) -> None:
    base = {"base": {"kind": "stylegan2", "conditional": False}, "regularizers": [{"kind": "path_length"}]}
    smoke |= {"runs": {"base": smoke["runs"]["base"] | base}, "bank": [], "claims": []}
    config.check(config.parse_study(smoke))


@pytest.mark.parametrize("folders", [(".",), ("a", "b")])
def test_a_conditional_run_needs_labels(smoke: dict, folders: tuple[str, ...], tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(exist_ok=True)
        for n in range(12):
            picture = Image.effect_noise((32, 32), n + 1).convert("RGB")
            picture.save(tmp_path / folder / f"{folder.strip('.')}{n}.png")
    smoke["runs"] = {"base": smoke["runs"]["base"]}
    smoke["runs"]["base"]["base"]["conditional"] = True
    smoke["datasets"]["land"]["source"] = {"kind": "folder", "path": str(tmp_path)}
    study = config.parse_study(smoke)
    if len(folders) == 2:
        check_files(study)
        return
    with pytest.raises(ConfigError, match=r"^runs\.base\.base\.conditional: land has no labels, expected at least two"):
        check_files(study)


def test_anchors_and_merged_keys_are_no_duplicates(tmp_path: Path) -> None:
    text = (ROOT / "config" / "smoke.yaml").read_text()
    assert "<<: *base" in text
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("<<: *base", "<<: *base\n    loss: hinge", 1))
    assert load(path).runs["ticket"].dataset == "land"


LONG_TAILED = """
name: long-tailed land
seeds: [0]
datasets:
  land: {source: {kind: earthcover}, resolution: 32}
runs:
  tail: &tail
    dataset: land
    base: {kind: sngan, release: gsr, g_channels: 32, d_channels: 32, conditional: true}
    augment: {kind: diffaug}
    regularizers: [{kind: group_spectral, weight: 0}]
    training: &training {batch: 32, total_nimg: 6400, snapshots: [0, 6400]}
  gsr:
    <<: *tail
    regularizers: [{kind: group_spectral, weight: 0.5, beta: 0.999}]
  l2:
    <<: *tail
    regularizers: [{kind: group_spectral, weight: 0}, {kind: class_affine_l2, weight: 0.5, beta: 0.999}]
  tables:
    <<: *tail
    regularizers: [{kind: group_spectral, weight: 0}, {kind: class_affine_spectral}]
  balanced:
    <<: *tail
    sampling: balanced
    gen_labels: uniform
select: {metric: {kind: kid}}
evaluate:
  metrics: [{kind: fid}, {kind: kid}, {kind: intra}]
  network: {kind: mobilenet_v2}
claims:
  - {id: gsr, method: group_spectral, statement: gSR keeps the tail diverse., arm: gsr, against: tail, control: l2,
     metric: diversity_tail, direction: higher, minimum_effect: 0.05}
  - {id: kid, method: group_spectral, statement: gSR brings the tail closer., arm: gsr, against: tail, control: l2,
     metric: kid_tail_mobilenet_v2, direction: lower, minimum_effect: 0.02}
"""


def test_a_long_tailed_study_with_its_controls(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(LONG_TAILED)
    assert load(path).runs["gsr"].gen_labels == "natural"


def test_a_term_of_weight_0_is_no_method(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(LONG_TAILED.replace("arm: gsr, against: tail", "arm: tail, against: gsr"))
    with pytest.raises(ConfigError, match=r"claims\.0\.method: got 'group_spectral', expected one of diffaug"):
        load(path)


def test_the_same_start_as_another_run_is_a_vision_aided_run_from_the_beginning(smoke: dict) -> None:
    smoke["runs"]["vision_aided"]["continues"]["nimg"] = 0
    config.check(config.parse_study(smoke))


@pytest.mark.parametrize(
    "edit",
    [
        stages(old=1, new=2),
        stages(old=1, new=1),
        aided(networks=[{"kind": "efficientnet_lite0", "random_init": True}, {"kind": "pixels"}]),
        at("runs.vision_aided.discriminators.1", {"kind": "vision_aided", "pick": "worst", "random_init": True}),
    ],
)
def test_stages_and_controls_are_accepted(smoke: dict, edit: Edit) -> None:
    edit(smoke)
    config.check(config.parse_study(smoke))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("against", "optimum_100", None),
        ("arm", "toy_gaussian", r"claims\.0\.arm: got 'toy_gaussian', did you mean 'toy_"),
        ("against", "optimum_500", r"claims\.0\.against: got 'optimum_500', did you mean 'optimum_100'\?"),
        ("metric", "copy", r"claims\.0\.metric: got 'copy', did you mean 'copies'\?"),
        ("control", "base_held_out", r"claims\.0\.metric: got 'information', expected one of copies"),
    ],
)
def test_a_claim_about_diffusion_names_what_is_measured(smoke: dict, field: str, value: str, message: str) -> None:
    smoke["diffusion"] = {"toy": {}, "exact": {"dataset": "land", "sizes": [100]}, "runs": ["base"]}
    claim = {"id": "gap", "method": "diffusion", "statement": "Less is copied."}
    claim |= {"stage": "diffusion", "arm": "base", "against": "gaussian_100", "metric": "information"}
    claim |= {"direction": "lower", "minimum_effect": 0.1}
    smoke["claims"] = [claim | {field: value}]
    study = config.parse_study(smoke)
    with nullcontext() if message is None else pytest.raises(ConfigError, match=message):
        config.check(study)


def test_further_judges_have_numbers_of_their_own(smoke: dict) -> None:
    smoke["evaluate"]["metrics"] = [{"kind": "fid"}, {"kind": "prdc"}, {"kind": "inception_score"}]
    smoke["evaluate"]["also"] = [
        {"network": {"kind": "hed_vgg16"}, "metrics": [{"kind": "fid"}, {"kind": "prdc"}], "shared": True},
        {"network": {"kind": "clip_vit"}, "metrics": [{"kind": "cmmd"}]},
        {"network": {"kind": "timm", "model": "vit_small_patch14_dinov2"}, "metrics": [{"kind": "fid"}]},
    ]
    smoke["claims"][0]["metric"] = "recall_hed_vgg16"
    study = config.parse_study(smoke)
    config.check(study)
    shares = ["precision", "recall", "density", "coverage"]
    assert measured_names(study) == [
        *("fd_mobilenet_v2", *shares, "is_mobilenet_v2"),
        *(f"{name}_hed_vgg16" for name in ("fd", *shares)),
        *("cmmd_clip_vit", "fd_vit_small_patch14_dinov2"),
    ]


def test_heads_alone_begin_with_discriminators_of_their_own(smoke: dict) -> None:
    heads_alone()(smoke)
    smoke["runs"]["vision_aided"]["continues"]["reset"] = ["discriminators"]
    config.check(config.parse_study(smoke))


def test_a_tap_that_does_not_exist_is_found_before_anything_runs(smoke: dict) -> None:
    smoke["bank"][3]["taps"] = ["conv3", "conv9"]
    with pytest.raises(
        ConfigError, match="taps: mtcnn_onet has no 'conv9', expected some of conv3, conv4, pooled, face"
    ):
        check_files(config.parse_study(smoke))


def test_weights_are_looked_for_in_the_folder_of_the_study(smoke: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYGAN_WEIGHTS", "")
    monkeypatch.delenv("PYGAN_WEIGHTS")
    smoke["weights_dir"] = str(tmp_path)
    smoke["bank"].append({"kind": "dino_vit"})
    with pytest.raises(MissingInput, match=rf"{tmp_path}/dino_vitbase16_pretrain.pth is not there: run `pygan weights"):
        check_files(config.parse_study(smoke))


def test_a_missing_asset_is_named_with_the_command(smoke: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_locate", lambda entry: None)
    with pytest.raises(MissingInput, match="pygan assets install"):
        check_files(config.parse_study(smoke))


def test_a_ticket_may_come_from_other_pictures_of_the_same_size(smoke: dict) -> None:
    found = smoke["runs"]["ticket"]
    smoke["runs"]["worn"] = found | {"subset": None, "ticket": {"kind": "transfer", "mask_of": "ticket"}}
    config.check(config.parse_study(smoke))
    smoke["datasets"]["large"] = smoke["datasets"]["land"] | {"resolution": 64}
    smoke["runs"]["worn"]["dataset"] = "large"
    with pytest.raises(
        ConfigError, match=r"mask_of: ticket has pictures of another `resolution` \(32\) than worn \(64\)"
    ):
        config.check(config.parse_study(smoke))
    smoke["runs"]["worn"] |= {"dataset": "land", "base": found["base"] | {"g_channels": 16}}
    with pytest.raises(ConfigError, match="mask_of: ticket has another `base` than worn, expected the same"):
        config.check(config.parse_study(smoke))


def test_channels_need_a_base_that_has_some(smoke: dict) -> None:
    ticket = {"kind": "lottery", "found_in": "base", "structure": "channel", "scope": "layer"}
    smoke["runs"]["ticket"]["ticket"] = ticket
    config.check(config.parse_study(smoke))
    for run in smoke["runs"].values():
        run["base"] = {"kind": "stylegan2", "channel_base": 512}
    with pytest.raises(ConfigError, match=r"runs\.ticket\.ticket: structure: got channel, but stylegan2 has no"):
        config.check(config.parse_study(smoke))


def test_a_mask_file_is_looked_at_before_anything_starts(smoke: dict, tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    smoke["runs"]["ticket"]["ticket"] = {"kind": "transfer", "path": str(path)}
    study = config.parse_study(smoke)
    with pytest.raises(MissingInput, match=r"runs\.ticket\.ticket\.path: .*no such file"):
        check_files(study)
    write_tensors(path, {"G.convs.0.weight": torch.ones(16, 32, 3, 3, dtype=torch.uint8)})
    check_files(study)
    write_tensors(path, {"G.convs.0.weight": torch.ones(8, 32, 3, 3, dtype=torch.uint8)})
    with pytest.raises(
        DataError, match=r"another architecture, G\.convs\.0\.weight has shape \[8, 32, 3, 3\], expected"
    ):
        check_files(study)


def test_check_ends_with_the_exit_codes(smoke: dict, tmp_path: Path) -> None:
    runner = CliRunner()
    path = tmp_path / "study.yaml"
    smoke["sedes"] = 1
    path.write_text(yaml.safe_dump(smoke))
    result = runner.invoke(app, ["check", str(path)])
    assert result.exit_code == 78
    assert result.output == f"error: {path}: sedes: unknown key, did you mean 'seeds'?\n"
    assert runner.invoke(app, ["check", str(tmp_path / "none.yaml")]).exit_code == 66

    del smoke["sedes"]
    smoke["datasets"]["land"]["source"] = {"kind": "folder", "path": str(tmp_path / "no_pictures")}
    path.write_text(yaml.safe_dump(smoke))
    result = runner.invoke(app, ["check", str(path)])
    assert result.exit_code in (65, 66)
    assert "no_pictures" in result.output


def test_clean_keeps_the_newest_and_the_held(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "held", "old", "older")):
        job = tmp_path / "train" / name
        job.mkdir(parents=True)
        (job / "lock").write_text("")
        (job / "state").write_bytes(b"x" * 2**20)
        os.utime(job / "lock", (1000 - age, 1000 - age))
    with (tmp_path / "train" / "held" / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = CliRunner().invoke(app, ["clean", "--keep", "1", "--work", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output == "2.0 MiB freed\n"
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["held", "newest"]


def test_what_is_not_measured_needs_neither_judge_nor_selection(smoke: dict) -> None:
    base = smoke["runs"]["base"] | {"evaluate": False}
    study = smoke | {"runs": {"base": base}, "claims": [], "anchors": {}, "bank": []}
    del study["select"], study["evaluate"]
    config.check(config.parse_study(study))
    with pytest.raises(ConfigError, match="select: the key is missing"):
        config.check(config.parse_study(study | {"anchors": {"copycat": "base"}}))
    stage = base | {"continues": {"run": "base", "nimg": "best"}}
    with pytest.raises(ConfigError, match="select: the key is missing"):
        config.check(config.parse_study(study | {"runs": {"base": base, "second": stage}}))


def test_a_denoiser_is_a_run_like_any_other(smoke: dict, tmp_path: Path) -> None:
    utils = pytest.importorskip("snakemake.utils")
    warp = {"kind": "labeled_warp"}
    denoiser(loss={"kind": "chain", "levels": "ddpm"}, augment=warp, continues={"run": "d", "nimg": 0})(smoke)
    smoke["runs"]["first"] = smoke["runs"]["d"] | {"continues": None}
    smoke["runs"]["d"]["continues"]["run"] = "first"
    smoke["claims"] = [smoke["claims"][0] | {"arm": "d", "against": "first", "method": "chain"}]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(smoke))
    study = load(path)
    utils.validate(smoke, str(schema.TARGET))
    assert smoke == study.plain()
    assert study.runs["d"].loss.gap_steps == (50, 200)
