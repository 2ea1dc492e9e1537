# The mask of one round: from the trained network of the round before (round 1 looks at the run `found_in`), drawn at
# random, or taken over from another run or a file.


rule prune_round:
    input:
        unpack(lambda wc: pruning_input(wc.run, wc.seed, int(wc.round))),
    output:
        mask=f"{RESULTS}/masks/{{run}}/seed{{seed}}/round{{round}}/mask.safetensors",
        record=f"{RESULTS}/masks/{{run}}/seed{{seed}}/round{{round}}/prune.json",
    log:
        f"{LOGS}/prune_round/{{run}}_seed{{seed}}_round{{round}}.log",
    benchmark:
        f"{BENCHMARKS}/prune_round/{{run}}_seed{{seed}}_round{{round}}.tsv"
    priority: 100
    params:
        stage=lambda wc: pruning_stage(wc.run, wc.seed, wc.round),
    shell:
        "python -m pipeline.prune_round --spec {params.stage:q}"
        " --input manifest={input.manifest:q} --input snapshot={input.snapshot:q}"
        " --input mask={input.mask:q} --input like={input.like:q}"
        ' --out "$(dirname {output.mask:q})" > {log:q} 2>&1'
