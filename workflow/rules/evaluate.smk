# A snapshot by the validation split, its metrics against the test split, and the same metrics for the anchors.


rule select:
    input:
        snapshot=lambda wc: snapshots(wc.run, wc.seed, candidates(wc.run)),
        features=lambda wc: reference(dataset_of(wc.run)),
    output:
        selected=f"{RESULTS}/select/{{run}}/seed{{seed}}/selected.json",
    log:
        f"{LOGS}/select/{{run}}_seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/select/{{run}}_seed{{seed}}.tsv"
    priority: 50
    resources:
        gpu=1,
    params:
        stage=lambda wc: select_stage(wc.run, wc.seed),
    shell:
        "python -m pipeline.select --spec {params.stage:q} --gpus {resources.gpu}"
        " --input snapshot={input.snapshot:q} --input features={input.features:q}"
        ' --out "$(dirname {output.selected:q})" > {log:q} 2>&1'


rule evaluate:
    input:
        unpack(lambda wc: evaluate_input(wc.run, wc.seed)),
    output:
        metrics=report(
            f"{RESULTS}/evaluate/{{run}}/seed{{seed}}/metrics.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"run": "{run}", "seed": "{seed}"},
        ),
        neighbors=(
            [f"{RESULTS}/evaluate/{{run}}/seed{{seed}}/neighbors.png"]
            if SEES_TRAINING
            else []
        ),
    log:
        f"{LOGS}/evaluate/{{run}}_seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}_seed{{seed}}.tsv"
    priority: 50
    resources:
        gpu=1,
    params:
        stage=lambda wc: evaluate_stage("run", wc.run, wc.seed),
    shell:
        "python -m pipeline.evaluate --spec {params.stage:q} --gpus {resources.gpu}"
        " --input selected={input.selected:q} --input snapshot={input.snapshot:q}"
        " --input run_json={input.run_json:q} --input features={input.features:q}"
        " --input manifest={input.manifest:q} --input train={input.train:q} --input test={input.test:q}"
        ' --out "$(dirname {output.metrics:q})" > {log:q} 2>&1'


rule anchor:
    input:
        unpack(lambda wc: anchor_input(wc.anchor, wc.seed)),
    output:
        metrics=f"{RESULTS}/anchors/{{anchor}}/seed{{seed}}/metrics.json",
    log:
        f"{LOGS}/anchor/{{anchor}}_seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/anchor/{{anchor}}_seed{{seed}}.tsv"
    resources:
        gpu=1,
    params:
        stage=lambda wc: evaluate_stage(wc.anchor, ANCHORS[wc.anchor], wc.seed),
    shell:
        "python -m pipeline.evaluate --spec {params.stage:q} --gpus {resources.gpu}"
        " --input manifest={input.manifest:q} --input train={input.train:q} --input test={input.test:q}"
        " --input snapshot={input.snapshot:q} --input features={input.features:q}"
        ' --out "$(dirname {output.metrics:q})" > {log:q} 2>&1'


rule anchor_real:
    input:
        features=references(ANCHORS.get("real")),
    output:
        metrics=f"{RESULTS}/anchors/real/metrics.json",
    log:
        f"{LOGS}/anchor/real.log",
    benchmark:
        f"{BENCHMARKS}/anchor/real.tsv"
    params:
        stage=lambda wc: real_stage(ANCHORS["real"]),
    shell:
        "python -m pipeline.evaluate --spec {params.stage:q} --input features={input.features:q}"
        ' --out "$(dirname {output.metrics:q})" > {log:q} 2>&1'
