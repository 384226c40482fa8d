"""Perplexity tokens/s and peak memory, ours against transformers, on the same windows.

    throughput.py --tool build/bin/lf_evaluate_windows --model DIR --text FILE
        [--windows 2] [--length 2048] [--rounds 2] [--dtype bfloat16 float32] [--threads 2]

Both sides and LibTorch's matrix product of the model's MLP run in turn, each in a process
of its own, so that other load on the machine hits all; the best round of each counts.
Prints one JSON object for each dtype.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REFERENCE = """
import json, resource, sys, time
import numpy as np, torch
from transformers import AutoModelForCausalLM
folder, ids, length, dtype, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
windows = torch.from_numpy(np.fromfile(ids, np.int32).astype(np.int64)).view(-1, int(length))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
start = time.perf_counter()
with torch.inference_mode():
    nll = [float(model(input_ids=w[None], labels=w[None], use_cache=False).loss) for w in windows]
seconds = time.perf_counter() - start
print(json.dumps(dict(
    perplexity=float(np.exp(np.mean(nll))),
    tokens_per_second=windows.numel() / seconds,
    peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
)))
"""

# The product that most of a forward pass consists of: [rows, D] with gate and up.
MATMUL = """
import json, sys, time, torch
rows, hidden, width, dtype, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
x = torch.randn(int(rows), int(hidden), dtype=getattr(torch, dtype))
weight = torch.randn(int(width), int(hidden), dtype=x.dtype)
out = torch.empty(int(rows), int(width), dtype=x.dtype)
seconds = []
stop = time.perf_counter() + 3
while len(seconds) < 3 or time.perf_counter() < stop:
    start = time.perf_counter()
    torch.mm(x, weight.t(), out=out)
    seconds.append(time.perf_counter() - start)
seconds.sort()
print(json.dumps(dict(flops=2 * x.numel() * int(width) / seconds[len(seconds) // 2])))
"""


def flops_of_token(config, length):
    """Of a forward pass: two for each weight but the embedding's, and causal attention,
    which sees half of the window on average."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv = config.get("num_key_value_heads", heads) * head_dim
    layer = 2 * hidden * (heads * head_dim + kv) + 3 * hidden * config["intermediate_size"]
    attention = 2 * heads * head_dim * length
    return config["num_hidden_layers"] * (2 * layer + attention) + 2 * hidden * config["vocab_size"]


def run(command):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


def best(results, key="tokens_per_second"):
    return max(results, key=lambda result: result[key])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    options = parser.parse_args()

    import numpy as np
    from transformers import AutoTokenizer

    config = json.loads(Path(options.model, "config.json").read_text())
    shape = [options.length, config["hidden_size"], 2 * config["intermediate_size"]]
    count = options.windows * options.length
    ids = AutoTokenizer.from_pretrained(options.model)(options.text.read_text())["input_ids"]
    if len(ids) < count:
        sys.exit(f"{options.text} has {len(ids)} tokens, expected at least {count}")
    with tempfile.NamedTemporaryFile() as file:
        np.array(ids[:count], np.int32).tofile(file.name)
        for dtype in options.dtype:
            arguments = [options.model, file.name, str(options.length), dtype, str(options.threads)]
            seen = {"latentforge": [], "transformers": []}
            products = []
            for _ in range(options.rounds):
                seen["latentforge"].append(run([options.tool, *arguments]))
                seen["transformers"].append(run([sys.executable, "-c", REFERENCE, *arguments]))
                products.append(run([sys.executable, "-c", MATMUL, *map(str, shape), dtype,
                                     str(options.threads)]))
            report = {"dtype": dtype, "tokens": count}
            for name, results in seen.items():
                chosen = best(results)
                report[name] = {
                    key: chosen[key] for key in ("tokens_per_second", "perplexity", "peak_rss_bytes")
                }
            ours, theirs = report["latentforge"], report["transformers"]
            report["speed_ratio"] = ours["tokens_per_second"] / theirs["tokens_per_second"]
            report["perplexity_ratio"] = ours["perplexity"] / theirs["perplexity"]
            product = best(products, "flops")["flops"]
            pass_flops = ours["tokens_per_second"] * flops_of_token(config, options.length)
            report["matmul_flops"] = product
            report["share_of_matmul"] = pass_flops / product
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
