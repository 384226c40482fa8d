#!/usr/bin/env python3
"""Perplexity of the published one-shot methods and of ours at equal cache bytes.

    quality.py --binaries DIR --model DIR --calibration FILE --evaluate FILE
    quality.py ... --text wiki=valid.txt:test.txt --text code=a.txt:b.txt [--mixture]

Each cell is one conversion through the real server, worker and compute process. With --text
every method is calibrated on each text (and on all of them with --mixture) and evaluated on each.
Cells go to --results as JSON lines as they are measured; those found there are not measured again.
bench/plot_quality.py draws them.
"""

import argparse
import pathlib
import tempfile

import common
from quality_results import BASELINE, Cell, Results

METHODS = {
    "plain SVD": {"preconditioner": "identity", "allocation": "uniform"},
    "ASVD (alpha 0.5)": {"preconditioner": "diagonal-l1", "allocation": "uniform"},
    BASELINE: {"preconditioner": "root-covariance", "allocation": "uniform"},
    "CARE with C": {"preconditioner": "covariance", "allocation": "uniform"},
    "CARE adjusted (paper)": {"preconditioner": "root-covariance", "allocation": "care"},
    "CARE adjusted (public code)": {"preconditioner": "root-covariance", "allocation": "care-code"},
    "Fisher, uniform ranks, joint": {"allocation": "uniform"},
    "latentforge, separate latents": {"latent": "separate"},
    "latentforge, separate latents, anchored": {"latent": "separate", "anchored": True},
    "latentforge (the default)": {},
    "latentforge, anchored": {"anchored": True},
    "latentforge, healed": {"heal_tokens": 40960},
}
ALL = "all"
BUDGETS = {"2/3": 2 / 3, "1/2": 1 / 2, "1/3": 1 / 3, "1/4": 1 / 4}


class Grid:
    def __init__(self, args, texts):
        self.args = args
        self.texts = texts  # name -> (calibration, evaluation)
        self.results = Results(args.results)

    def cell(self, text, **conversion):
        return Cell(self.args.model.name, self.args.windows, text, **conversion)

    def conversion(self, calibration, method, budget):
        """The cells of one conversion, a text each."""
        if METHODS[method].get("preconditioner") == "identity":
            calibration = next(iter(self.texts))  # no text changes it
        tokens = f"{self.args.sequences}x{self.args.sequence_length}"
        return [self.cell(text, method=method, budget=budget, calibration=calibration,
                          tokens=tokens, seed=self.args.seed) for text in self.texts]

    def measure_original(self):
        for cell in map(self.cell, self.texts):
            if cell not in self.results:
                self.results.add(cell, self.evaluate(self.args.model, cell.evaluation))

    def evaluate(self, model, text):
        return common.evaluate(self.args.binaries, model, self.texts[text][1], self.args.windows)

    def measure(self, calibration, method, budget):
        missing = [cell for cell in self.conversion(calibration, method, budget)
                   if cell not in self.results]
        if not missing:
            return
        common.note(f"{method}, {budget}, calibrated on {missing[0].calibration}")
        calibration = missing[0].calibration
        names = list(self.texts) if calibration == ALL else [calibration]
        with tempfile.TemporaryDirectory(prefix="lf-bench-") as folder:
            out = pathlib.Path(folder, "out")
            # What is measured is measured below, on every text; one window is the least there is.
            report = common.convert_to(
                out, self.args.binaries, self.args.model, [self.texts[name][0] for name in names],
                self.texts[names[0]][1], kv_budget=BUDGETS[budget], seed=self.args.seed,
                calibration_sequences=self.args.sequences,
                sequence_length=self.args.sequence_length, evaluate_windows=1, **METHODS[method])
            predicted = report.get("prediction", {}).get("loss")
            for cell in missing:
                self.results.add(cell, self.evaluate(out, cell.evaluation), predicted)

    def print_tables(self, calibration):
        """Two tables for each text: perplexity, and the share of the baseline's gap recovered."""
        for text in self.texts:
            original = self.results.perplexity.get(self.cell(text))
            if original is None:
                continue
            print(f"Perplexity on {text}, {self.args.windows} windows of 2048; calibrated on "
                  f"{calibration}, {self.args.sequences} x {self.args.sequence_length} tokens; "
                  f"original {original:.3f}.\n")
            self.print_table(calibration, text, self.args.methods,
                             lambda cell: (self.results.perplexity.get(cell), "{:.2f}"))
            print("Share of the log-perplexity gap of CARE uniform that is recovered, %:\n")
            self.print_table(calibration, text, [m for m in self.args.methods if "latentforge" in m],
                             lambda cell: (self.results.recovered(cell), "{:.1%}"))

    def print_table(self, calibration, text, methods, value):
        def show(method, budget):
            cells = self.conversion(calibration, method, budget)
            number, form = value(next(cell for cell in cells if cell.evaluation == text))
            return "–" if number is None else form.format(number)
        rows = [[method] + [show(method, budget) for budget in self.args.budgets] for method in methods]
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
    parser.add_argument("--print-only", action="store_true", help="measures nothing")
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
    if not args.print_only:
        grid.measure_original()
    for calibration in list(texts) + ([ALL] if args.mixture else []):
        for method in args.methods if not args.print_only else []:
            for budget in args.budgets:
                grid.measure(calibration, method, budget)
        grid.print_tables(calibration)


if __name__ == "__main__":
    main()
