# One rule per training, because each run lists its own snapshots. What a run is resumed from lies in work/, which no
# rule declares: Snakemake deletes the outputs of a job that failed.


for job in JOBS:

    rule:
        name:
            "train_" + job.replace("@", "_round")
        input:
            manifest=lambda wc, job=job: data(dataset_of(job), "manifest.json"),
            train=lambda wc, job=job: stores(dataset_of(job), "train"),
            validation=lambda wc, job=job: stores(dataset_of(job), "validation"),
            init=lambda wc, job=job: first_snapshot(run_of(job), wc.seed),
            selected=lambda wc, job=job: selected_start(run_of(job), wc.seed),
            transfer=lambda wc, job=job: transferred(run_of(job)),
            probe=lambda wc, job=job: probed(run_of(job), wc.seed),
            mask=lambda wc, job=job: masks(run_of(job), wc.seed, round_of(job)),
        output:
            run=f"{RESULTS}/train/{job}/seed{{seed}}/run.json",
            stats=f"{RESULTS}/train/{job}/seed{{seed}}/stats.jsonl",
            snapshots=snapshots(job, "{seed}", nimgs_of(job)),
            samples=[
                *snapshots(job, "{seed}", nimgs_of(job)[:-1], "png"),
                report(
                    snapshots(job, "{seed}", nimgs_of(job)[-1:], "png"),
                    caption="../report/samples.rst",
                    category="Samples",
                    labels={"training": job, "seed": "{seed}"},
                ),
            ],
        log:
            f"{LOGS}/train/{job}_seed{{seed}}.log",
        benchmark:
            f"{BENCHMARKS}/train/{job}_seed{{seed}}.tsv"
        priority: PRIORITY[run_of(job)]
        threads: config["threads"] * config["processes"]
        resources:
            gpu=config["processes"],
        params:
            stage=lambda wc, job=job: training_stage(job, wc.seed),
            trainer=trainer_of(job),  # the command is put together when the job runs, after this loop
        shell:
            "exec python -m pipeline.{params.trainer} --spec {params.stage:q}"
            f" --gpus {{resources.gpu}} --processes {config['processes']}"
            " --input manifest={input.manifest:q} --input train={input.train:q}"
            " --input validation={input.validation:q} --input init={input.init:q}"
            " --input transfer={input.transfer:q} --input selected={input.selected:q} --input probe={input.probe:q} --input mask={input.mask:q}"
            ' --out "$(dirname {output.run:q})" > {log:q} 2>&1'
