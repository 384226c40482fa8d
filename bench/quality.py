#!/usr/bin/env python3
"""Perplexity of the published one-shot methods and of ours at equal cache bytes.

    quality.py --binaries DIR --model DIR --calibration FILE --evaluate FILE
    quality.py ... --text wiki=valid.txt:test.txt --text code=a.txt:b.txt [--mixture]

Each cell is one conversion through the real server, worker and compute process. With --text
every method is calibrated on each text (and on all of them with --mixture) and evaluated on each.
Cells go to --results as JSON lines as they are measured; those found there are not measured again.
"""

import argparse
import json
import math
import pathlib
import tempfile

import common

METHODS = {
    "plain SVD": {"preconditioner": "identity", "allocation": "uniform"},
    "ASVD (alpha 0.5)": {"preconditioner": "diagonal-l1", "allocation": "uniform"},
    "CARE uniform (sqrt C) = SVD-LLM": {"preconditioner": "root-covariance", "allocation": "uniform"},
    "CARE with C": {"preconditioner": "covariance", "allocation": "uniform"},
    "CARE adjusted (paper)": {"preconditioner": "root-covariance", "allocation": "care"},
    "CARE adjusted (public code)": {"preconditioner": "root-covariance", "allocation": "care-code"},
    "Fisher, uniform ranks, joint": {"allocation": "uniform"},
    "latentforge, separate latents": {"latent": "separate"},
    "latentforge, separate latents, anchored": {"latent": "separate", "anchored": True},
    "**latentforge** (the default)": {},
    "latentforge, anchored": {"anchored": True},
    "**latentforge**, healed": {"heal_tokens": 40960},
}
BASELINE = "CARE uniform (sqrt C) = SVD-LLM"
BUDGETS = {"2/3": 2 / 3, "1/2": 1 / 2, "1/3": 1 / 3, "1/4": 1 / 4}


class Results:
    """Measured cells, by what they depend on."""

    def __init__(self, path):
        self.path = path
        self.cells = {}
        if path and path.exists():
            for line in path.read_text().splitlines():
                cell = json.loads(line)
                self.cells[cell["key"]] = cell["perplexity"]

    def get(self, key, measure):
        if key not in self.cells:
            common.note(key)
            self.cells[key] = measure()
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps({"key": key, "perplexity": self.cells[key]}) + "\n")
        return self.cells[key]


class Grid:
    def __init__(self, args, texts):
        self.args = args
        self.texts = texts  # name -> (calibration, evaluation)
        self.results = Results(args.results)

    def key(self, *parts):
        args = self.args
        return " | ".join([args.model.name, f"{args.sequences}x{args.sequence_length}",
                           f"{args.windows} windows", *map(str, parts)])

    def original(self, text):
        return self.results.get(
            self.key("original", text),
            lambda: common.evaluate(self.args.binaries, self.args.model, self.texts[text][1],
                                    self.args.windows))

    def cells(self, calibration, method, budget):
        """Perplexity on every text; one conversion, unless all are known."""
        keys = {text: self.key(method, budget, f"calibrated on {calibration}", f"seed {self.args.seed}",
                               f"on {text}") for text in self.texts}
        if all(key in self.results.cells for key in keys.values()):
            return {text: self.results.cells[key] for text, key in keys.items()}
        names = list(self.texts) if calibration == "all" else [calibration]
        with tempfile.TemporaryDirectory(prefix="lf-bench-") as folder:
            out = pathlib.Path(folder, "out")
            # What is measured is measured below, on every text; one window is the least there is.
            common.convert_to(
                out, self.args.binaries, self.args.model, [self.texts[name][0] for name in names],
                self.texts[names[0]][1], kv_budget=BUDGETS[budget], seed=self.args.seed,
                calibration_sequences=self.args.sequences,
                sequence_length=self.args.sequence_length, evaluate_windows=1, **METHODS[method])
            found = {text: self.results.get(key, lambda text=text: common.evaluate(
                self.args.binaries, out, self.texts[text][1], self.args.windows))
                for text, key in keys.items()}
        return found

    def measure(self, calibration):
        """method -> budget -> text -> perplexity"""
        return {method: {budget: self.cells(calibration, method, budget) for budget in self.args.budgets}
                for method in self.args.methods}

    def print_tables(self, calibration, measured):
        for text in self.texts:
            original = self.original(text)
            print(f"Perplexity on {text}, {self.args.windows} windows of 2048; calibrated on {calibration}, "
                  f"{self.args.sequences} x {self.args.sequence_length} tokens; original {original:.3f}.\n")
            rows = [[method] + [f"{cells[budget][text]:.2f}" for budget in self.args.budgets]
                    for method, cells in measured.items()]
            common.table(["method \\ KV cache"] + self.args.budgets, rows)
            if BASELINE not in measured:
                continue
            print("Share of the log-perplexity gap of CARE uniform that is recovered, %:\n")
            gap = {budget: math.log(measured[BASELINE][budget][text] / original)
                   for budget in self.args.budgets}
            rows = [[method] + [
                f"{100 * (1 - math.log(cells[budget][text] / original) / gap[budget]):.1f}"
                for budget in self.args.budgets]
                for method, cells in measured.items() if "latentforge" in method]
            common.table(["method \\ KV cache"] + self.args.budgets, rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", type=pathlib.Path)
    parser.add_argument("--evaluate", type=pathlib.Path)
    parser.add_argument("--text", action="append", default=[], metavar="NAME=CALIBRATION:EVALUATION")
    parser.add_argument("--mixture", action="store_true", help="calibrate on all texts together too")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=pathlib.Path)
    args = parser.parse_args()
    texts = {}
    for text in args.text:
        name, _, files = text.partition("=")
        calibration, _, evaluation = files.partition(":")
        if not evaluation:
            parser.error(f"--text is {text}, expected NAME=CALIBRATION:EVALUATION")
        texts[name] = (pathlib.Path(calibration), pathlib.Path(evaluation))
    if not texts:
        if not args.calibration or not args.evaluate:
            parser.error("expected --calibration and --evaluate, or --text")
        texts[args.evaluate.name] = (args.calibration, args.evaluate)
    return args, texts


def main():
    args, texts = parse_arguments()
    grid = Grid(args, texts)
    for calibration in list(texts) + (["all"] if args.mixture else []):
        grid.print_tables(calibration, grid.measure(calibration))


if __name__ == "__main__":
    main()
