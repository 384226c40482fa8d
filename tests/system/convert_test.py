#!/usr/bin/env python3
"""The real chain: CLI, private server, worker and compute process convert a
checkpoint; transformers loads the result and agrees with the report.

Usage: convert_test.py --binaries DIR (--model DIR | --family NAME) --calibration FILE
       --evaluate FILE [--budget B] [--sequences N] [--length L] [--windows W] [--twice]
A family is one of tests/parity/tiny_models.py.
"""

import argparse
import hashlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

# fp32 against fp32: the issue's own bound for the perplexity of one protocol in two
# implementations. Rounding differences are two orders below it.
RELATIVE_PERPLEXITY_TOLERANCE = 1e-3
TINY_MODELS = pathlib.Path(__file__).parent.parent / "parity/tiny_models.py"


def fail(message):
    sys.exit(f"FAIL: {message}")


def run(command, expected=0):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != expected:
        fail(f"{command} ended with {done.returncode}, expected {expected}:\n{done.stderr[-3000:]}")
    return done


def perplexity(folder, text, windows, length):
    """The protocol in transformers: one tokenisation, whole windows, mean of means."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    ids = torch.tensor(tokenizer(text.read_bytes().decode()).input_ids)
    losses = []
    with torch.inference_mode():
        for i in range(windows):
            window = ids[None, i * length:(i + 1) * length]
            logits = model(window).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, window[0, 1:]).item())
    return math.exp(sum(losses) / len(losses))


def check_close(what, ours, theirs):
    if not abs(ours / theirs - 1) < RELATIVE_PERPLEXITY_TOLERANCE:
        fail(f"{what}: ours {ours}, transformers {theirs}")
    print(f"{what}: ours {ours:.5f}, transformers {theirs:.5f}")


def check_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {entry["name"]: entry for entry in manifest["files"]}
    present = {p.name for p in folder.iterdir()} - {"manifest.json"}
    if present != set(listed):
        fail(f"the manifest lists {sorted(listed)}, the folder holds {sorted(present)}")
    for name, entry in listed.items():
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if digest != entry["sha256"]:
            fail(f"{name} has SHA-256 {digest}, the manifest says {entry['sha256']}")


def check_cache(folder, report):
    """Bytes that a real cache holds after a prompt, against the report."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="auto")
    tokens = 17
    with torch.inference_mode():
        cache = model(torch.arange(1, tokens + 1)[None], use_cache=True).past_key_values
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    expected = report["kv_cache"]["bytes_per_token"]["converted"] * tokens
    if held != expected:
        fail(f"the cache holds {held} bytes after {tokens} tokens, the report promises {expected}")
    prompt = torch.arange(1, 9)[None]
    cached = model.generate(prompt, max_new_tokens=12, do_sample=False, use_cache=True)
    plain = model.generate(prompt, max_new_tokens=12, do_sample=False, use_cache=False)
    if model.dtype == torch.float32 and not torch.equal(cached, plain):
        fail(f"generation with cache {cached.tolist()} differs from without {plain.tolist()}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("binaries", "calibration", "evaluate"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=pathlib.Path)
    source.add_argument("--family")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--twice", action="store_true", help="a second run must give the same bytes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lf-system-") as name:
        folder = pathlib.Path(name) / "outputs"
        folder.mkdir()
        if args.family:
            args.model = pathlib.Path(name) / args.family
            run([sys.executable, TINY_MODELS, "--family", args.family, "--out", args.model])

        def convert(out):
            done = run([args.binaries / "latentforge", "convert", args.model, "--kv-budget", args.budget,
                        "--calibration", args.calibration, "--evaluate", args.evaluate,
                        "--calibration-sequences", args.sequences, "--sequence-length", args.length,
                        "--evaluate-windows", args.windows, "--window-length", args.length,
                        "--dtype", "float32", "--threads", 2, "--out", out, "-o", "json"])
            return json.loads(done.stdout)

        report = convert(folder / "out")
        if json.loads((folder / "out/report.json").read_text()) != report:
            fail("-o json printed something else than report.json")
        cache = report["kv_cache"]["bytes_per_token"]
        if cache["converted"] > args.budget * cache["base"]:
            fail(f"cache of {cache} exceeds the budget {args.budget}")
        check_manifest(folder / "out")
        base = perplexity(args.model, args.evaluate, args.windows, args.length)
        converted = perplexity(folder / "out", args.evaluate, args.windows, args.length)
        check_close("original", report["perplexity"]["base"], base)
        check_close("converted", report["perplexity"]["converted"], converted)
        check_cache(folder / "out", report)
        if args.twice:
            convert(folder / "again")
            for path in sorted((folder / "out").glob("*.safetensors")) + [folder / "out/config.json"]:
                if path.read_bytes() != (folder / "again" / path.name).read_bytes():
                    fail(f"a second run wrote another {path.name}")
        refused = run([args.binaries / "latentforge", "convert", args.model, "--kv-budget", args.budget,
                       "--calibration", args.calibration, "--out", folder / "out"], expected=7)
        if "not empty" not in refused.stderr:
            fail(f"an output folder that is not empty gave: {refused.stderr}")
        left = sorted(p.name for p in folder.iterdir())
        if left != (["again", "out"] if args.twice else ["out"]):
            fail(f"something was left beside the artifact: {left}")
    print("OK")


if __name__ == "__main__":
    main()
