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


def run_json(command):
    """The JSON that a command prints; ends the benchmark with its errors."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def convert_to(out, binaries, model, calibration, evaluation, **options):
    """Runs one conversion into the folder `out` and returns its report.json. `calibration` is a
    text or a list of them; `options` are flags of `latentforge convert`, with underscores for
    dashes; True stands for a flag without a value."""
    texts = calibration if isinstance(calibration, list) else [calibration]
    command = [binaries / "latentforge", "convert", model, "--evaluate", evaluation, "--out", out,
               "-o", "json"]
    for text in texts:
        command += ["--calibration", text]
    for key, value in options.items():
        command.append("--" + key.replace("_", "-"))
        if value is not True:
            command.append(value)
    return run_json(command)


def convert(binaries, model, calibration, evaluation, **options):
    """The report of a conversion whose artifact is of no use."""
    with tempfile.TemporaryDirectory(prefix="lf-bench-") as folder:
        return convert_to(f"{folder}/out", binaries, model, calibration, evaluation, **options)


def evaluate(binaries, model, text, windows):
    """The perplexity of a checkpoint or an artifact on windows of 2,048 tokens."""
    return run_json([binaries / "latentforge", "evaluate", model, "--text", text, "--windows",
                     windows, "--window-length", 2048, "-o", "json"])["perplexity"]
