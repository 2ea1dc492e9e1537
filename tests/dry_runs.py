"""Plans several studies in one process, which saves Snakemake's start: `FOLDER STUDY...`, all run in FOLDER.

Prints a JSON mapping: study to {"ok", "output"}.
"""

import contextlib
import io
import json
import os
import sys


def plan(study: str) -> dict[str, object]:
    from snakemake.cli import args_to_api, parse_args

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        parser, arguments = parse_args(["--dry-run", "--configfile", study])
        try:
            ok = args_to_api(arguments, parser)
        except SystemExit as stop:
            ok = not stop.code
    return {"ok": ok, "output": output.getvalue()}


if __name__ == "__main__":
    folder, *studies = sys.argv[1:]
    os.chdir(folder)
    print(json.dumps({study: plan(study) for study in studies}))
