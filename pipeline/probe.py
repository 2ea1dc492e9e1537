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

    from pipeline.granted import computed_on, device_of
    from pipeline.start import start_snapshot
    from pygan.bank import Choice, choose
    from pygan.checkpoint import write_json
    from pygan.data.store import Store
    from pygan.sampling import load_generator

    config = spec["config"]
    answer = choose(
        Choice(**{key: config[key] for key in ("bank", "count", "pick", "random_init")}, **config["probe"]),
        Store(inputs["train"][0]),
        load_generator(start_snapshot(inputs, "snapshot")).to(device_of(spec)),
        seed=config["seed"],
        subset=config["subset"],
        used=json.loads(inputs["used"][0].read_text())["frozen"] if "used" in inputs else (),
    )
    names = {key: config[key] for key in ("run", "seed")}
    write_json(out / "probe.json", names | answer | {"device": computed_on(spec)})


if __name__ == "__main__":
    run_stage(main)
