"""Stage `train_denoiser`: one diffusion run with one seed, from pictures to snapshots of networks."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Train one job, as one of several processes where torchrun started them.

    Args:
        spec: `config` holds the run's fields of the study file, its name `run` and its `seed`.
        inputs: `manifest`, `train` and `validation` stores; where the run asks for it `init`, a snapshot to start from
            (several: `selected` says which).
        out: gets `run.json`, `stats.jsonl` and `snapshots/<nimg>.{safetensors,png}`; checkpoints go beside it.
    """
    from pipeline.training_job import TrainingJob
    from pygan.training.assemble_denoiser import assemble, methods
    from pygan.training.diffusion import train

    job = TrainingJob(spec, inputs)
    run, indices = assemble(job.config, **job.material())
    result = train(run, job.training, state_dir=out.parent / "state", out_dir=out, ranks=job.ranks)
    job.write_record(out, indices, result, methods=methods(job.config), frozen=[], looked_through=[], masks=None)


if __name__ == "__main__":
    run_stage(main)
