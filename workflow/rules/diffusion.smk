# What generative models owe their training set: a toy, exact denoisers of real pictures, and trained runs.
#
# The toy needs no data, the exact denoisers need the stores, a run its own snapshots and one of another seed.


rule diffusion_toy:
    output:
        diffusion=f"{RESULTS}/diffusion/toy/seed{{seed}}/diffusion.json",
    log:
        f"{LOGS}/diffusion/toy/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/diffusion/toy_seed{{seed}}.tsv"
    params:
        stage=lambda wc: diffusion_stage("toy", int(wc.seed)),
    shell:
        "python -m pipeline.diffusion --spec {params.stage:q}"
        ' --out "$(dirname {output.diffusion:q})" > {log:q} 2>&1'


rule diffusion_exact:
    input:
        **exact_input(),
    output:
        diffusion=f"{RESULTS}/diffusion/exact/seed{{seed}}/diffusion.json",
        panels=[
            f"{RESULTS}/diffusion/exact/seed{{seed}}/{name}" for name in exact_panels()
        ],
    log:
        f"{LOGS}/diffusion/exact/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/diffusion/exact_seed{{seed}}.tsv"
    resources:
        gpu=1,
    params:
        stage=lambda wc: diffusion_stage("exact", int(wc.seed)),
    shell:
        "python -m pipeline.diffusion --spec {params.stage:q} --gpus {resources.gpu} --input manifest={input.manifest:q}"
        " --input pictures={input.pictures:q}"
        ' --out "$(dirname {output.diffusion:q})" > {log:q} 2>&1'


rule diffusion_run:
    input:
        manifest=lambda wc: data(dataset_of(wc.run), "manifest.json"),
        train=lambda wc: stores(dataset_of(wc.run), "train"),
        validation=lambda wc: stores(dataset_of(wc.run), "validation"),
        snapshot=lambda wc: snapshots(
            wc.run, wc.seed, [nimg for nimg in nimgs_of(wc.run) if nimg]
        ),
        other=lambda wc: last_of_other_seed(wc.run, int(wc.seed)),
    output:
        diffusion=f"{RESULTS}/diffusion/run/{{run}}/seed{{seed}}/diffusion.json",
        panel=f"{RESULTS}/diffusion/run/{{run}}/seed{{seed}}/neighbors.png",
    log:
        f"{LOGS}/diffusion/run/{{run}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/diffusion_run/{{run}}_seed{{seed}}.tsv"
    resources:
        gpu=1,
    params:
        stage=lambda wc: diffusion_stage("run", int(wc.seed), wc.run),
    shell:
        "python -m pipeline.diffusion --spec {params.stage:q} --gpus {resources.gpu} --input manifest={input.manifest:q}"
        " --input train={input.train:q} --input validation={input.validation:q}"
        " --input snapshot={input.snapshot:q} --input other={input.other:q}"
        ' --out "$(dirname {output.diffusion:q})" > {log:q} 2>&1'
