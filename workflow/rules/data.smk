# Raw pictures to LMDB stores, and the features of the real pictures in the network of every judge.


rule prepare_data:
    output:
        manifest=f"{RESULTS}/data/{{dataset}}/manifest.json",
        train=f"{RESULTS}/data/{{dataset}}/train.lmdb",
        validation=f"{RESULTS}/data/{{dataset}}/validation.lmdb",
        test=f"{RESULTS}/data/{{dataset}}/test.lmdb",
        contact_sheet=report(
            f"{RESULTS}/data/{{dataset}}/contact_sheet.png",
            caption="../report/contact_sheet.rst",
            category="Data",
            labels={"data set": "{dataset}"},
        ),
    log:
        f"{LOGS}/prepare_data/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/prepare_data/{{dataset}}.tsv"
    priority: 100
    params:
        stage=lambda wc: data_stage(wc.dataset),
    shell:
        "python -m pipeline.prepare_data --spec {params.stage:q}"
        ' --out "$(dirname {output.manifest:q})" > {log:q} 2>&1'


rule reference:
    input:
        manifest=f"{RESULTS}/data/{{dataset}}/manifest.json",
        train=ancient(f"{RESULTS}/data/{{dataset}}/train.lmdb"),
        validation=ancient(f"{RESULTS}/data/{{dataset}}/validation.lmdb"),
        test=ancient(f"{RESULTS}/data/{{dataset}}/test.lmdb"),
    output:
        features=f"{RESULTS}/reference/{{dataset}}/{{judge}}/features.safetensors",
        record=f"{RESULTS}/reference/{{dataset}}/{{judge}}/reference.json",
    log:
        f"{LOGS}/reference/{{dataset}}_judge{{judge}}.log",
    benchmark:
        f"{BENCHMARKS}/reference/{{dataset}}_judge{{judge}}.tsv"
    priority: 100
    resources:
        gpu=1,
    params:
        stage=lambda wc: reference_stage(wc.dataset, wc.judge),
    shell:
        "python -m pipeline.reference --spec {params.stage:q} --gpus {resources.gpu}"
        " --input manifest={input.manifest:q} --input train={input.train:q}"
        " --input validation={input.validation:q} --input test={input.test:q}"
        ' --out "$(dirname {output.record:q})" > {log:q} 2>&1'
