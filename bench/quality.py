#!/usr/bin/env python3
"""Perplexity of the published one-shot methods at equal cache bytes.

Each cell is one conversion through the real server, worker and compute process.
"""

import argparse
import pathlib

import common

METHODS = [
    ("**latentforge** (joint, Fisher, global)", {}),
    ("latentforge, separate latents", {"latent": "separate"}),
    ("Fisher, uniform ranks, joint", {"allocation": "uniform"}),
    ("plain SVD", {"preconditioner": "identity", "allocation": "uniform"}),
    ("ASVD (alpha 0.5)", {"preconditioner": "diagonal-l1", "allocation": "uniform"}),
    ("CARE uniform (= SVD-LLM)", {"preconditioner": "root-covariance", "allocation": "uniform"}),
    ("CARE adjusted (paper)", {"preconditioner": "root-covariance", "allocation": "care"}),
    ("CARE adjusted (public code)", {"preconditioner": "root-covariance", "allocation": "care-code"}),
]
BUDGETS = [("2/3", 2 / 3), ("1/2", 1 / 2), ("1/3", 1 / 3), ("1/4", 1 / 4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", type=pathlib.Path, required=True)
    parser.add_argument("--evaluate", type=pathlib.Path, required=True)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=8)
    args = parser.parse_args()
    base = None
    rows = []
    for name, options in METHODS:
        row = [name]
        for label, budget in BUDGETS:
            common.note(f"{name} at {label}")
            report = common.convert(
                args.binaries, args.model, args.calibration, args.evaluate,
                kv_budget=budget, calibration_sequences=args.sequences,
                sequence_length=args.sequence_length, evaluate_windows=args.windows,
                window_length=2048, **options)
            base = report["perplexity"]["base"]
            row.append(f"{report['perplexity']['converted']:.2f}")
        rows.append(row)
    print(f"Perplexity; original {base:.3f}; calibration {args.calibration.name}, {args.sequences} x "
          f"{args.sequence_length} tokens; evaluation {args.evaluate.name}, {args.windows} windows of 2048.\n")
    common.table(["method \\ KV cache"] + [label for label, _ in BUDGETS], rows)


if __name__ == "__main__":
    main()
