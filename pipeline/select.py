"""Stage `select`: the snapshot of a run that scores best on the validation split."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Score the candidate snapshots and name the best; the test split is not seen here.

    Args:
        spec: `config` holds `run`, `seed`, `metric`, `n_gen` and the metric `network`.
        inputs: the candidates `snapshot` and the real `features`.
        out: gets `selected.json`.
    """
    from pipeline.granted import computed_on, device_of
    from pygan.checkpoint import read_tensors, write_json
    from pygan.context import Context
    from pygan.metrics.base import network_spec
    from pygan.metrics.selection import select

    config = spec["config"]
    ctx = Context(resolution=0, device=device_of(spec))
    network = network_spec(config["network"], "evaluate.network").build(ctx)
    chosen = select(
        inputs["snapshot"],
        read_tensors(inputs["features"][0])[0]["validation"],
        metric=config["metric"],
        n_gen=config["n_gen"],
        seed=config["seed"],
        network=network,
    )
    names = {"run": config["run"], "seed": config["seed"]}
    write_json(out / "selected.json", names | chosen | {"device": computed_on(spec)})


if __name__ == "__main__":
    run_stage(main)
