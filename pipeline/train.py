"""Stage `train`: one GAN run with one seed, from pictures to snapshots of networks."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Train one job, as one of several processes where torchrun started them.

    Args:
        spec: `config` holds the run's fields of the study file, its name `run`, its `seed` and `frozen`, the networks
            that the probe chose.
        inputs: `manifest`, `train` and `validation` stores; where the run asks for them `init` (a snapshot to start
            from; several: `selected` says which), `mask`, `probe` and `transfer` (a snapshot of which
            the networks take what fits).
        out: gets `run.json`, `stats.jsonl` and `snapshots/<nimg>.{safetensors,png}`; checkpoints go beside it.
    """
    from pipeline.training_job import TrainingJob
    from pygan.checkpoint import read_tensors
    from pygan.features.frozen import as_chosen
    from pygan.pruning.masks import as_masks, sparsity
    from pygan.training.assemble import assemble, methods
    from pygan.training.gan import train
    from pygan.training.init_from import transfer

    job = TrainingJob(spec, inputs)
    masks = {}
    if "mask" in inputs:
        masks = as_masks(read_tensors(inputs["mask"][0])[0], str(inputs["mask"][0]))
    frozen = tuple(as_chosen(item, job.config["seed"]) for item in job.config["frozen"])
    run, indices = assemble(job.config, frozen=frozen, masks=masks, **job.material())
    if "transfer" in inputs:
        print(transfer(run, inputs["transfer"][0]), flush=True)
    result = train(run, job.training, state_dir=out.parent / "state", out_dir=out, ranks=job.ranks)
    job.write_record(
        out,
        indices,
        result,
        methods=methods(job.config),
        frozen=[name for d in run.D for name in d.heads if name != "D"],
        masks={"sparsity": sparsity(masks), "tensors": len(masks)} if masks else None,
        looked_through=[
            term["network"]["kind"]
            for term in job.config["regularizers"]
            if term.get("network") and not term["network"].get("random_init")
        ],
    )


if __name__ == "__main__":
    run_stage(main)
