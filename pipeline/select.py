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
    from pygan.checkpoint import read_tensors, write_json
    from pygan.context import Context
    from pygan.metrics.base import extract, network_spec
    from pygan.sampling import load_generator, sample
    from pygan.spec import load_spec

    config = spec["config"]
    network = network_spec(config["network"], "evaluate.network").build(Context(resolution=0))
    metric = load_spec("pygan.metrics", config["metric"], "select.metric").build()
    real = read_tensors(inputs["features"][0])[0]["validation"]
    scores = {}
    for path in inputs["snapshot"]:
        gen = extract(sample(load_generator(path), config["n_gen"], seed=config["seed"], stream="select"), network)
        name, result = next(iter(metric.compute(real, gen).items()))
        scores[int(path.stem)] = result["value"]
    best = min(scores, key=scores.__getitem__)
    write_json(
        out / "selected.json",
        {
            "run": config["run"],
            "seed": config["seed"],
            "nimg": best,
            "snapshot": f"{best:09d}.safetensors",
            "metric": f"{name}_{network.name}",
            "split": "validation",
            "n_gen": config["n_gen"],
            "scores": {str(nimg): value for nimg, value in scores.items()},
        },
    )


if __name__ == "__main__":
    run_stage(main)
