#!/usr/bin/env python3
"""Speed of healing against the same step written in transformers and PyTorch.

    healing.py --binaries DIR --model DIR --calibration FILE --evaluate FILE [--steps 8] [--threads 2]

Both train all of attention in the same conversion to half the cache: two sequences of 512 tokens
a step, the divergence of the whole distribution from the original's, bf16 with fp32 masters and
Adam. Both measure 8 held-back sequences before and after, within the time. They run in turn, each
on its own split of the text.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import common

BATCH, LENGTH, HELD_BACK = 2, 512, 8

REFERENCE = """
import json, resource, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

original, converted, text, steps, batch, length, held_back, threads = sys.argv[1:]
steps, batch, length, held_back = int(steps), int(batch), int(length), int(held_back)
torch.set_num_threads(int(threads))
teacher = AutoModelForCausalLM.from_pretrained(original, dtype=torch.bfloat16).eval()
student = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.bfloat16,
                                               trust_remote_code=True).eval()
for parameter in [*teacher.parameters(), *student.parameters()]:
    parameter.requires_grad_(False)
attention = ("kv_down_proj", "k_up_proj", "v_up_proj", "q_proj", "o_proj")
trained = [p for name, p in student.named_parameters() if any(part in name for part in attention)]
masters = [p.detach().float().clone() for p in trained]
for parameter in trained:
    parameter.requires_grad_(True)
optimizer = torch.optim.Adam(masters, lr=1e-5, betas=(0.9, 0.98))
head = teacher.get_output_embeddings().weight
ids = AutoTokenizer.from_pretrained(original)(open(text).read())["input_ids"]
ids = torch.tensor(ids[:(steps * batch + held_back) * length]).view(-1, length)

def states(model, ids):
    return model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)

def divergence(teacher_states, student_states):
    log_p = torch.log_softmax((teacher_states @ head.t()).float(), -1)
    log_q = torch.log_softmax((student_states @ head.t()).float(), -1)
    return (log_p.exp() * (log_p - log_q)).sum()

@torch.no_grad()
def measure(ids):
    total = 0.0
    for rows in ids.split(batch):
        pairs = zip(states(teacher, rows).split(512), states(student, rows).split(512))
        total += sum(float(divergence(p, q)) for p, q in pairs)
    return total / ids.numel()

def step(ids):
    with torch.no_grad():
        goal = states(teacher, ids)
    found = states(student, ids)
    leaf = found.detach().requires_grad_()
    for p, q in zip(goal.split(512), leaf.split(512)):
        (divergence(p, q) / ids.numel()).backward()
    found.backward(leaf.grad)
    for master, parameter in zip(masters, trained):
        master.grad, parameter.grad = parameter.grad.float(), None
    torch.nn.utils.clip_grad_norm_(masters, 1.0)
    optimizer.step()
    with torch.no_grad():
        for master, parameter in zip(masters, trained):
            parameter.copy_(master)

start = time.perf_counter()
before = measure(ids[:held_back])
for rows in ids[held_back:].split(batch):
    step(rows)
after = measure(ids[:held_back])
seconds = time.perf_counter() - start
print(json.dumps(dict(seconds=seconds, tokens_per_second=steps * batch * length / seconds,
                      peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                      before=before, after=after)))
"""


def ours(args, folder):
    report = common.convert_to(
        folder, args.binaries, args.model, args.calibration, args.evaluate, kv_budget=0.5,
        calibration_sequences=4, evaluate_windows=1, threads=args.threads,
        heal_tokens=args.steps * BATCH * LENGTH)
    phase = next(p for p in report["phases"] if p["name"] == "fine_tuning")
    measured = report["healing"]["measurements"]
    return {"tokens_per_second": report["healing"]["tokens"] / phase["seconds"],
            "peak_rss_bytes": report["peak_rss_bytes"],
            "before": measured[0]["divergence"], "after": measured[-1]["divergence"]}


def theirs(args, folder):
    command = [sys.executable, "-c", REFERENCE, args.model, folder, args.calibration, args.steps, BATCH,
               LENGTH, HELD_BACK, args.threads]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binaries", "model", "calibration", "evaluate"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lf-bench-") as name:
        folder = pathlib.Path(name, "out")
        common.note("healing: latentforge")
        own = ours(args, folder)
        common.note("healing: transformers and PyTorch")
        reference = theirs(args, folder)
    rows = [[label, f"{run['tokens_per_second']:.0f}", f"{run['peak_rss_bytes'] / 2**20:.0f}",
             f"{run['before']:.4f}", f"{run['after']:.4f}"]
            for label, run in (("latentforge", own), ("transformers + PyTorch", reference))]
    common.table([f"healing, {args.steps} steps of {BATCH} x {LENGTH} tokens", "tokens/s",
                  "peak memory, MiB", "divergence before", "after"], rows)
    print(f"Ratio of the speeds: {own['tokens_per_second'] / reference['tokens_per_second']:.2f}\n")


if __name__ == "__main__":
    main()
