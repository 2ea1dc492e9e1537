# What Reg-DGM promises, computed where it can be: formulas, finite spaces, likelihoods of real pictures.


rule theory:
    input:
        **theory_input(),
    output:
        theory=f"{RESULTS}/theory/theory.json",
    log:
        f"{LOGS}/theory.log",
    benchmark:
        f"{BENCHMARKS}/theory/theory.tsv"
    params:
        stage=lambda wc: theory_stage(),
    shell:
        "python -m pipeline.theory --spec {params.stage:q} --input manifest={input.manifest:q}"
        " --input train={input.train:q} --input test={input.test:q}"
        ' --out "$(dirname {output.theory:q})" > {log:q} 2>&1'
