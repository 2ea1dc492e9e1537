# Which pretrained networks tell the real pictures from the generated ones: decides the heads of vision-aided runs.
#
# A checkpoint, so that its answer decides what the training depends on, and an unchanged answer reruns nothing.


checkpoint probe:
    input:
        manifest=lambda wc: data(dataset_of(wc.run), "manifest.json"),
        train=lambda wc: stores(dataset_of(wc.run), "train"),
        snapshot=lambda wc: first_snapshot(wc.run, wc.seed),
        selected=lambda wc: selected_start(wc.run, wc.seed),
        used=lambda wc: probed_before(wc.run, wc.seed),
    output:
        probe=f"{RESULTS}/probe/{{run}}/seed{{seed}}/probe.json",
    log:
        f"{LOGS}/probe/{{run}}_seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/probe/{{run}}_seed{{seed}}.tsv"
    priority: 100
    resources:
        gpu=1,
    params:
        stage=lambda wc: probe_stage(wc.run, wc.seed),
    shell:
        "python -m pipeline.probe --spec {params.stage:q} --gpus {resources.gpu}"
        " --input manifest={input.manifest:q} --input train={input.train:q} --input snapshot={input.snapshot:q}"
        " --input selected={input.selected:q} --input used={input.used:q}"
        ' --out "$(dirname {output.probe:q})" > {log:q} 2>&1'
