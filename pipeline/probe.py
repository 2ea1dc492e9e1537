"""Stage `probe`: which frozen network tells real from generated pictures best, by a linear probe."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Rank the bank on the training pictures of one run and seed, and choose what joins.

    Networks that the run before has are kept and not probed again.

    Args:
        spec: `config` holds `run`, `seed`, `base`, `subset`, `bank`, `count` (networks in all), `pick` ("best" or
            "worst"), `random_init` and `probe` (`n_images`, `criterion`, `repeats`).
        inputs: `train` store, the `snapshot` whose generator is probed (several: `selected` says which), and `used`,
            the probe.json of the run before, where it has heads.
        out: gets `probe.json`; its list "frozen" is what the training builds, in order.
    """
    import json

    import torch
    from tqdm import tqdm

    from pipeline.start import start_snapshot
    from pygan.checkpoint import write_json
    from pygan.context import Context
    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.features.probe import SEPARABLE, linear_probe, rank
    from pygan.sampling import load_generator, sample, to_float
    from pygan.spec import load_spec

    config, probe = spec["config"], spec["config"]["probe"]
    used = json.loads(inputs["used"][0].read_text())["frozen"] if "used" in inputs else []
    specs = {
        values.name: (values, entry) for entry in config["bank"] for values in [load_spec("pygan.features", entry)]
    }
    for item in used:
        specs.pop(item["name"], None)
    store = Store(inputs["train"][0])
    subset = None if config["subset"] is None else parse_subset(config["subset"])
    indices = select(store.labels, subset, config["seed"])[: probe["n_images"]]
    real = torch.from_numpy(store.read(indices))
    generator = load_generator(start_snapshot(inputs, "snapshot"))
    gen = sample(generator, len(real), seed=config["seed"], stream="probe")
    results = {}
    ctx = Context(resolution=store.resolution, seed=config["seed"])
    for name, (values, entry) in tqdm(specs.items(), desc="probe", disable=None):
        network = values.build(ctx)
        with torch.no_grad():
            features = [torch.cat([network.pooled(to_float(part)) for part in img.split(50)]) for img in (real, gen)]
        result = linear_probe(*features, seed=config["seed"], repeats=probe["repeats"])
        settings = {"resolution": network.resolution, "separable": result["accuracy"] > SEPARABLE, "entry": entry}
        results[name] = result | settings
    order = rank(results, probe["criterion"])
    best_first = order if config["pick"] == "best" else order[::-1]
    control = {"random_init": True} if config["random_init"] else {}
    added = [
        {"name": name, "entry": results[name]["entry"] | control, "separable": results[name]["separable"]}
        for name in best_first[: config["count"] - len(used)]
    ]
    write_json(
        out / "probe.json",
        {
            "run": config["run"],
            "seed": config["seed"],
            "criterion": probe["criterion"],
            "pick": config["pick"],
            "used": [item["name"] for item in used],
            "chosen": [item["name"] for item in used + added],
            "frozen": used + added,
            "n_real": len(real),
            "n_gen": len(gen),
            "networks": {name: results[name] for name in order},
        },
    )


if __name__ == "__main__":
    run_stage(main)
