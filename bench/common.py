"""What the benchmarks share: running our binaries and printing Markdown tables."""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def note(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def convert(binaries, model, calibration, evaluation, **options):
    """Runs one conversion and returns its report.json. `options` are flags of
    `latentforge convert`, with underscores for dashes."""
    with tempfile.TemporaryDirectory(prefix="lf-bench-") as folder:
        command = [str(binaries / "latentforge"), "convert", str(model), "--calibration",
                   str(calibration), "--evaluate", str(evaluation), "--out", f"{folder}/out",
                   "-o", "json"]
        for key, value in options.items():
            command += ["--" + key.replace("_", "-"), str(value)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout)
