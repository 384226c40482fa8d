#!/usr/bin/env python3
"""Draws what bench/quality.py measured, with gnuplot.

    plot_quality.py --results FILE --out DIR

budgets.svg: loss by cache size, a panel for each text, calibrated on text of its kind.
texts.svg: loss at half the cache by what was calibrated on and what was measured.
"""

import argparse
import pathlib
import subprocess

from quality import ALL, BUDGETS
from quality_results import BASELINE, ORIGINAL, Results

# Those that a reader compares; the tables have all.
DRAWN = {
    "ASVD (alpha 0.5)": "#bbbbbb",
    BASELINE: "#d98c00",
    "CARE with C": "#e3c17a",
    "CARE adjusted (paper)": "#b0502f",
    "latentforge, separate latents": "#6aa6d6",
    "latentforge (the default)": "#10559a",
    "latentforge, healed": "#0b8a4b",
}
HEAD = """set terminal svg size {width},{height} dynamic background '#ffffff' font 'sans-serif,13'
set encoding utf8
set border 3 linecolor '#888888'
set tics nomirror out textcolor '#444444'
set grid ytics linecolor '#dddddd' linetype 1
"""


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def block(name, rows):
    return f"${name} << EOD\n" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "EOD\n"


def loss_by_budget(results, text, method):
    """(share of the cache, loss), by size; only what was measured."""
    points = {BUDGETS[cell.budget]: results.loss(cell) for cell in results.perplexity
              if (cell.method, cell.evaluation, cell.calibration) == (method, text, text)
              and cell.seed == 0}
    return sorted((share, loss) for share, loss in points.items() if loss is not None and loss > 0)


def budgets_script(results, texts):
    parts = [HEAD.format(width=900, height=720),
             "set logscale y\nset format y '%g'\nset yrange [0.005:12]\nset xrange [0.2:0.72]\n",
             "set xtics (" + ", ".join(f"'{name}' {share}" for name, share in BUDGETS.items()) + ")\n",
             "set multiplot layout 2,2 margins 0.08,0.98,0.08,0.82 spacing 0.08,0.12\n"]
    for panel, text in enumerate(texts):
        curves = {m: loss_by_budget(results, text, m) for m in DRAWN}
        curves = {m: points for m, points in curves.items() if points}
        if not curves:
            continue
        for i, points in enumerate(curves.values()):
            parts.append(block(f"d{panel}_{i}", points))
        # One legend for all panels.
        parts.append("set key at screen 0.5,0.985 center top maxrows 4 reverse Left samplen 2\n" if panel == 0
                     else "unset key\n")
        parts.append(f"set title {quoted(f'loss on {text}, nats a token')} offset 0,-0.6\n")
        parts.append("plot " + ", ".join(
            f"$d{panel}_{i} with linespoints pointtype 7 pointsize 0.6 linewidth 2 "
            f"linecolor '{DRAWN[m]}' title {quoted(m)}" for i, m in enumerate(curves)) + "\n")
    parts.append("unset multiplot\n")
    return "".join(parts)


def texts_script(results, texts, method, baseline):
    """Clusters by evaluated text; a bar for each calibration, the baseline's beside it."""
    calibrations = texts + [ALL]
    rows = []
    for text in texts:
        row = [text]
        for calibration in calibrations:
            for name in (baseline, method):
                found = [results.loss(cell) for cell in results.perplexity
                         if (cell.method, cell.budget, cell.evaluation, cell.calibration, cell.seed)
                         == (name, "1/2", text, calibration, 0)]
                row.append(f"{found[0]:.4f}" if found else "NaN")
        rows.append(row)
    shades = ["#10559a", "#3f83bf", "#76aed8", "#a9cce6", "#0b8a4b"]
    warm = ["#d98c00", "#e0a33a", "#e8bb70", "#f0d3a3", "#b0502f"]
    bars = []
    for j, (name, colours) in enumerate(((baseline, warm), (method, shades))):
        for i, calibration in enumerate(calibrations):
            title = quoted(f"{name.split(' (')[0]}, calibrated on {calibration}")
            bars.append(f"$d using {2 + 2 * i + j}:xtic(1) linecolor '{colours[i]}' title {title}")
    return "".join([
        HEAD.format(width=900, height=480), block("d", rows),
        "set style data histogram\nset style histogram clustered gap 2\nset style fill solid\n",
        "set boxwidth 0.9\nset yrange [0:*]\n",
        "set key outside top center horizontal maxrows 5 reverse Left samplen 1\n",
        "set ylabel 'loss at half the cache, nats a token'\n", "plot " + ", ".join(bars) + "\n"])


def draw(script, path):
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise SystemExit(f"gnuplot cannot draw {path}:\n{done.stderr}")
    path.write_text(done.stdout)
    print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    results = Results(args.results)
    if not results.perplexity:
        parser.error(f"--results is {args.results}, which holds no measured cell")
    texts = list(dict.fromkeys(cell.evaluation for cell in results.perplexity
                               if cell.method == ORIGINAL))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(budgets_script(results, texts), args.out / "budgets.svg")
    draw(texts_script(results, texts, "latentforge (the default)", BASELINE), args.out / "texts.svg")


if __name__ == "__main__":
    main()
