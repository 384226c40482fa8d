#!/usr/bin/env python3
"""The real chain: `latentforge study` on a tiny model, killed in the middle and resumed. All cells
share one calibration and one evaluation of the original, and each has the figures of a conversion
of its own.

Usage: study_test.py --binaries DIR --calibration FILE --evaluate FILE
"""

import argparse
import csv
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import time

TINY_MODELS = pathlib.Path(__file__).parent.parent / "parity/tiny_models.py"
SEQUENCES, LENGTH, WINDOWS = 8, 64, 2
RATIOS = ("0.2", "0.4")
ROWS = ("plain SVD", "Hessian", "l1", "l2", "Cov", "RootCov", "LatentLLM", "Fisher, global ranks")


def fail(message):
    sys.exit(f"FAIL: {message}")


def check(condition, message):
    if not condition:
        fail(message)


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done


def cells_of(folder):
    path = folder / "cells.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in whole]


def tokens_of(report, phase):
    """Tokens that a phase put through models, of its speed and its time."""
    found = next(p for p in report["phases"] if p["name"] == phase)
    return round(found["seconds"] * found["tokens_per_second"])


def check_shared(folder, cells):
    """One calibration, one pass back, one evaluation of the original."""
    reports = [json.loads((folder / "reports" / f"{c['key']}.json").read_text()) for c in cells]
    calibrated = [tokens_of(r, "calibrating") for r in reports]
    # So few tokens all go back; a cell with both passes would have twice as many.
    whole = SEQUENCES * LENGTH
    passes = [(c["row"], tokens) for c, tokens in zip(cells, calibrated) if tokens > 0]
    check(passes == [(cells[0]["row"], whole), ("Fisher, global ranks", whole)],
          f"expected a forward pass by the first cell and one pass back, found {passes}")
    evaluated = [tokens_of(r, "evaluating") for r in reports]
    both = [tokens for tokens in evaluated if tokens > WINDOWS * LENGTH]
    check(len(both) == 1 and sorted(evaluated)[0] == WINDOWS * LENGTH,
          f"tokens evaluated: {evaluated}, expected twice {WINDOWS * LENGTH} once")
    check(len({c["perplexity_base"] for c in cells}) == 1, "the original has several perplexities")


def main():
    parser = argparse.ArgumentParser()
    for name in ("binaries", "calibration", "evaluate"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lf-study-") as name:
        folder = pathlib.Path(name)
        model, study = folder / "model", folder / "study"
        run([sys.executable, TINY_MODELS, "--family", "llama3-scaled", "--out", model])
        common = ["--calibration", args.calibration, "--evaluate", args.evaluate,
                  "--calibration-sequences", SEQUENCES, "--sequence-length", LENGTH,
                  "--evaluate-windows", WINDOWS, "--window-length", LENGTH, "--dtype", "float32",
                  "--threads", 2]
        command = [args.binaries / "latentforge", "study", model, *common, "--ratios",
                   ",".join(RATIOS), "--out", study, "--work-dir", folder / "work"]

        with (folder / "log").open("w") as log:
            first = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
            deadline = time.monotonic() + 120
            while len(cells_of(study)) < 3 and first.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            first.kill()
            first.wait()
        before = cells_of(study)
        check(3 <= len(before) < len(ROWS) * len(RATIOS),
              f"killed after {len(before)} cells:\n{(folder / 'log').read_text()[-2000:]}")

        resumed = run([*command, "-o", "json"])
        check(f"{len(ROWS) * len(RATIOS)} cells, {len(before)} of them measured" in resumed.stderr,
              resumed.stderr[:500])
        cells = cells_of(study)
        check(cells[:len(before)] == before, "cells that had ended were measured again")
        check({(c["row"], c["ratio"]) for c in cells} == {(r, float(x)) for r in ROWS for x in RATIOS},
              f"cells: {[(c['row'], c['ratio']) for c in cells]}")
        check(len(json.loads(resumed.stdout)["cells"]) == len(cells), "-o json lacks cells")
        check_shared(study, cells)
        for cell in cells:
            gone = 1 - cell["linear_parameters"] / cell["linear_parameters_base"]
            check(cell["ratio"] <= gone < cell["ratio"] + 0.15, f"{cell['row']}: {gone} are gone")
        rows = list(csv.DictReader(io.StringIO((study / "study.csv").read_text())))
        check(len(rows) == len(cells), f"study.csv has {len(rows)} lines")
        check(sorted(p.name for p in (study / "cells").iterdir()) == [], "artifacts were left")

        # Shared statistics change no figure.
        alone = run([args.binaries / "latentforge", "convert", model, *common, "--method", "low-rank",
                     "--ratio", "0.4", "--preconditioner", "root-covariance", "--out", folder / "alone",
                     "--work-dir", folder / "other", "-o", "json"])
        report = json.loads(alone.stdout)
        shared = next(c for c in cells if c["row"] == "LatentLLM" and c["ratio"] == 0.4)
        check(report["perplexity"]["converted"] == shared["perplexity"] and
              report["perplexity"]["base"] == shared["perplexity_base"],
              f"alone {report['perplexity']}, in the study {shared}")
    print("OK")


if __name__ == "__main__":
    main()
