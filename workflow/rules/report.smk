# Everything in one page; seconds per stage come from the benchmark tables of the jobs.


rule report:
    input:
        **diffusion_files(),
        manifest=[
            path
            for dataset in config["datasets"]
            for path in data(dataset, "manifest.json")
        ],
        contact_sheet=[
            path
            for dataset in config["datasets"]
            for path in data(dataset, "contact_sheet.png")
        ],
        run_json=per_seed(lambda job, seed: trained(job, seed, "run.json"), JOBS),
        stats=per_seed(lambda job, seed: trained(job, seed, "stats.jsonl"), JOBS),
        samples=per_seed(
            lambda run, seed: snapshots(run, seed, nimgs_of(run), "png"), RUNS
        ),
        metrics=per_seed(
            lambda run, seed: [f"{RESULTS}/evaluate/{run}/seed{seed}/metrics.json"],
            EVALUATED,
        ),
        neighbors=(
            per_seed(
                lambda run, seed: [
                    f"{RESULTS}/evaluate/{run}/seed{seed}/neighbors.png"
                ],
                EVALUATED,
            )
            if SEES_TRAINING
            else []
        ),
        selected=per_seed(
            lambda run, seed: [f"{RESULTS}/select/{run}/seed{seed}/selected.json"],
            EVALUATED,
        ),
        probe=per_seed(
            lambda run, seed: [f"{RESULTS}/probe/{run}/seed{seed}/probe.json"],
            filter(heads_of, RUNS),
        ),
        prune=per_seed(
            lambda run, seed: [
                path
                for number in range(rounds_of(run))
                for path in masks(run, seed, number + 1, "prune.json")
            ],
            RUNS,
        ),
        anchors=[path for anchor in ANCHORS for path in anchor_metrics(anchor)],
        theory=[f"{RESULTS}/theory/theory.json"] if config["theory"] else [],
        template=local(TEMPLATE),
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../report/page.rst",
            category="Report",
        ),
        summary=report(
            f"{RESULTS}/report/summary.json",
            caption="../report/summary.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/report.log",
    localrule: True
    params:
        stage=lambda wc: report_stage(),
    shell:
        "python -m pipeline.report --spec {params.stage:q}"
        " --input manifest={input.manifest:q} --input contact_sheet={input.contact_sheet:q}"
        " --input run_json={input.run_json:q} --input stats={input.stats:q} --input samples={input.samples:q}"
        " --input neighbors={input.neighbors:q} --input metrics={input.metrics:q} --input selected={input.selected:q} --input probe={input.probe:q}"
        " --input prune={input.prune:q} --input anchors={input.anchors:q} --input theory={input.theory:q}"
        " --input diffusion={input.diffusion:q} --input panels={input.panels:q}"
        " --input template={input.template:q}"
        ' --input rule_graph="$(ls "$(dirname {output.page:q})/../rule_graph.json" 2> /dev/null)"'
        ' --input benchmarks="$(dirname {output.page:q})/../benchmarks"'
        ' --out "$(dirname {output.page:q})" > {log:q} 2>&1'
