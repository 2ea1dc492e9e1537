"""Stand-ins for the stages: they write the declared files at once, with content that follows from spec and inputs.

`install` copies the tree and lets every `pipeline/<stage>.py` run its stand-in; the imports stay as they are, so the
digests see the same code as in the real tree.
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINERS = ("train", "train_denoiser")
STAGES = (
    "prepare_data",
    "reference",
    "probe",
    "prune_round",
    "train",
    "train_denoiser",
    "select",
    "evaluate",
    "theory",
    "diffusion",
    "report",
)

FAKE = """
import hashlib, json

FILES = {
    "prepare_data": ["manifest.json", "train.lmdb", "validation.lmdb", "test.lmdb", "contact_sheet.png"],
    "reference": ["features.safetensors", "reference.json"],
    "prune_round": ["mask.safetensors", "prune.json"],
    "select": ["selected.json"],
    "evaluate": ["metrics.json"],
    "theory": ["theory.json"],
    "diffusion": ["diffusion.json"],
    "report": ["index.html", "summary.json"],
}


def main(spec, *, inputs, out):
    content = json.dumps(spec, sort_keys=True)
    for name, paths in sorted(inputs.items()):
        content += name + "".join(hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.is_file())
    names = FILES.get(spec["stage"], [])
    if spec["stage"] == "evaluate" and "run_json" in inputs and "test" in inputs:
        names = [*names, "neighbors.png"]
    if spec["stage"] == "probe":
        entry = {"kind": "efficientnet_lite0", "resolution": 48}
        frozen = [{"name": "efficientnet_lite0", "entry": entry, "separable": True}]
        (out / "probe.json").write_text(json.dumps({"chosen": ["efficientnet_lite0"], "frozen": frozen}))
    if spec["stage"] in ("train", "train_denoiser"):
        start = (spec["config"]["continues"] or {"nimg": -1})["nimg"]
        start = 0 if start == "best" else start
        nimgs = [nimg for nimg in spec["config"]["training"]["snapshots"] if nimg > start]
        (out / "snapshots").mkdir()
        names = ["run.json", "stats.jsonl"]
        names += [f"snapshots/{nimg:09d}.{suffix}" for nimg in nimgs for suffix in ("safetensors", "png")]
    if spec["stage"] == "diffusion":
        exact = spec["config"]["diffusion"]["exact"]
        if spec["config"]["subject"] == "run":
            names = [*names, "neighbors.png"]
        if exact:
            names = [*names, *(f"neighbors_{n}_{name}.png" for n in exact["sizes"] for name in ("optimum", "gaussian"))]
    for name in names:
        (out / name).write_text(hashlib.sha256(content.encode()).hexdigest() + name)
"""


def install(target: Path) -> Path:
    """Copy the tree to `target` with stand-ins for the stages; return `target`."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "results", "work")
    for name in ("pygan", "pipeline", "workflow", "profiles", "config", "csrc"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for name in ("CMakeLists.txt", "reproduce"):
        shutil.copy(ROOT / name, target)
    (target / "pipeline" / "fake.py").write_text(FAKE)
    for stage in STAGES:
        path = target / "pipeline" / f"{stage}.py"
        text = path.read_text()
        assert text.count("run_stage(main)") == 1
        path.write_text(text.replace("run_stage(main)", "from pipeline import fake\n\n    run_stage(fake.main)"))
    runner = target / "pipeline" / "cli.py"
    text = runner.read_text()
    assert text.count('_prepare_ops() if "csrc" in spec else None') == 1
    runner.write_text(text.replace('_prepare_ops() if "csrc" in spec else None', "None"))
    return target
