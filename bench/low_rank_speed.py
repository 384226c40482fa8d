#!/usr/bin/env python3
"""Speed of low-rank artifacts in transformers against the dense original, tokens a second.

    low_rank_speed.py --binaries DIR --model DIR --calibration FILE --evaluate FILE
                      [--ratios 0.1 0.3 0.5] [--layouts block-identity plain] [--batches 1 4]
                      [--contexts 128 512] [--device auto] [--dtype bfloat16] [--threads 2]

Prefill: a prompt of `context` tokens in each sequence of the batch. Decode: single tokens behind
it, with the cache. Models take turns, --rounds times, and each keeps its best time. Speed does not
depend on the factors' values, so that they are those of the cheapest preconditioner on few tokens.
Artifacts run with the model code that they carry; a ratio of 1 is the speed of the original.
"""

import argparse
import pathlib
import tempfile
import time

import common
import torch
from transformers import AutoModelForCausalLM

DENSE = "dense"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binaries", "model", "calibration", "evaluate"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    parser.add_argument("--layouts", nargs="+", default=["block-identity", "plain"],
                        choices=["block-identity", "plain"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--decoded", type=int, default=16, help="tokens decoded in each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def artifacts(args, folder):
    """Folders by name: the original, and one for each layout and ratio."""
    folders = {DENSE: args.model}
    for layout in args.layouts:
        for ratio in args.ratios:
            name = f"{layout}, {ratio:.0%} gone"
            common.note(f"converting: {name}")
            folders[name] = pathlib.Path(folder, f"{layout}-{ratio}")
            common.convert_to(folders[name], args.binaries, args.model, args.calibration, args.evaluate,
                              method="low-rank", ratio=ratio, factor_layout=layout,
                              preconditioner="identity", calibration_sequences=1, sequence_length=64,
                              evaluate_windows=1, window_length=64, work_dir=f"{folder}/work")
    return folders


def load(folder, device, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=dtype)
    return model.to(device).eval()


class Timer:
    """Seconds of a call, when the device has finished it."""

    def __init__(self, device):
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def __call__(self, call):
        self.wait()
        begin = time.perf_counter()
        result = call()
        self.wait()
        return time.perf_counter() - begin, result


@torch.inference_mode()
def measure(model, batch, context, decoded, timer):
    """Seconds of a prefill and of `decoded` steps behind it."""
    ids = torch.randint(0, model.config.vocab_size, (batch, context),
                        generator=torch.Generator().manual_seed(0)).to(model.device)
    token = ids[:, :1]
    prefill, output = timer(lambda: model(ids, use_cache=True, logits_to_keep=1))
    cache = output.past_key_values

    def decode():
        for _ in range(decoded):
            model(token, past_key_values=cache, use_cache=True, logits_to_keep=1)

    model(token, past_key_values=cache, use_cache=True, logits_to_keep=1)  # warms up
    return prefill, timer(decode)[0]


def best_seconds(models, args, batch, context, timer):
    """The best prefill and decode of each model."""
    best = {}
    for turn in range(args.rounds + 1):
        for name, model in models.items():
            seconds = measure(model, batch, context, args.decoded, timer)
            if turn == 0:
                continue  # warms up
            best[name] = tuple(map(min, best.get(name, seconds), seconds))
    return best


def linear_parameters(model):
    """In memory, of the decoder's layers: what a token is multiplied by."""
    return sum(p.numel() for p in model.model.layers.parameters() if p.dim() == 2)


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, args.dtype)
    timer = Timer(device)
    with tempfile.TemporaryDirectory(prefix="lf-bench-") as folder:
        models = {name: load(path, device, dtype) for name, path in artifacts(args, folder).items()}
        where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {args.threads} threads"
        print(f"{args.model.name}, {args.dtype}, {where}; tokens/s, and over the dense model's\n")
        dense = linear_parameters(models[DENSE])
        common.table(["model", "parameters of layers"],
                     [[name, f"{linear_parameters(model) / dense:.1%}"]
                      for name, model in models.items()])
        header, rows = ["model"], {name: [name] for name in models}
        for batch in args.batches:
            for context in args.contexts:
                common.note(f"batch {batch}, context {context}")
                best = best_seconds(models, args, batch, context, timer)
                for phase, (place, tokens) in {"prefill": (0, batch * context),
                                               "decode": (1, batch * args.decoded)}.items():
                    header.append(f"{phase} {batch} × {context}")
                    for name, seconds in best.items():
                        ratio = best[DENSE][place] / seconds[place]
                        rows[name].append(f"{tokens / seconds[place]:,.0f} ({ratio:.2f})")
        common.table(header, list(rows.values()))


if __name__ == "__main__":
    main()
