#!/usr/bin/env python3
"""Peak resident memory of a conversion, for a model and for one of the same width with
four times the layers (random weights). It must not grow with the number of layers.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import common
import torch
from transformers import AutoConfig, AutoModelForCausalLM


def deepen(model, folder, factor):
    """A checkpoint like `model` with `factor` times the layers."""
    config = AutoConfig.from_pretrained(model)
    config.num_hidden_layers *= factor
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types * factor
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    shutil.copy(model / "tokenizer.json", folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", type=pathlib.Path, required=True)
    parser.add_argument("--evaluate", type=pathlib.Path, required=True)
    args = parser.parse_args()
    rows, phases = [], None
    with tempfile.TemporaryDirectory(prefix="lf-bench-") as name:
        deep = pathlib.Path(name) / "deep"
        deepen(args.model, deep, 4)
        for label, model in (("the model", args.model), ("four times the layers", deep)):
            common.note(f"memory: {label}")
            report = common.convert(args.binaries, model, args.calibration, args.evaluate,
                                    kv_budget=0.5, calibration_sequences=2, sequence_length=2048,
                                    evaluate_windows=1, window_length=2048)
            layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
            fp32 = 4 * report["source"]["parameters"]
            peak = report["peak_rss_bytes"]
            rows.append([label, layers, f"{fp32 / 2**20:.0f}", f"{peak / 2**20:.0f}", f"{peak / fp32:.2f}"])
            phases = phases or report["phases"]
    common.table(["conversion of", "layers", "checkpoint in fp32, MiB", "peak memory, MiB", "ratio"], rows)
    common.table(["phase", "seconds", "tokens/s"],
                 [[p["name"], f"{p['seconds']:.1f}", f"{p['tokens_per_second']:.0f}"] for p in phases])


if __name__ == "__main__":
    main()
