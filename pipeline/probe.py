"""Stage `probe`: which frozen network tells real from generated pictures best, by a linear probe."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Rank the bank on the training pictures of one run and seed.

    Args:
        spec: `config` holds `run`, `seed`, `base`, `subset`, `bank`, `count` and `probe` (`n_images`, `criterion`).
        inputs: `train` store and the `snapshot` whose generator is probed.
        out: gets `probe.json`.
    """
    import torch
    from tqdm import tqdm

    from pygan.checkpoint import write_json
    from pygan.context import Context
    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.features.probe import linear_probe, rank
    from pygan.sampling import load_generator, sample, to_float
    from pygan.spec import load_spec

    config, probe = spec["config"], spec["config"]["probe"]
    store = Store(inputs["train"][0])
    subset = None if config["subset"] is None else parse_subset(config["subset"])
    indices = select(store.labels, subset, config["seed"])[: probe["n_images"]]
    real = torch.from_numpy(store.read(indices))
    gen = sample(load_generator(inputs["snapshot"][0]), len(real), seed=config["seed"], stream="probe")
    results, resolutions = {}, {}
    for values in tqdm(config["bank"], desc="probe", disable=None):
        network = load_spec("pygan.features", values, "bank").build(Context(resolution=store.resolution))
        with torch.no_grad():
            features = [torch.cat([network.pooled(to_float(part)) for part in img.split(50)]) for img in (real, gen)]
        results[network.name] = linear_probe(*features, seed=config["seed"])
        resolutions[network.name] = network.resolution
    order = rank(results, probe["criterion"])
    write_json(
        out / "probe.json",
        {
            "run": config["run"],
            "seed": config["seed"],
            "criterion": probe["criterion"],
            "chosen": order[: config["count"]],
            "n_real": len(real),
            "n_gen": len(gen),
            "networks": {name: results[name] | {"resolution": resolutions[name]} for name in order},
        },
    )


if __name__ == "__main__":
    run_stage(main)
