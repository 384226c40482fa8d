"""SmolLM2 against transformers: fp32 logits, and perplexity in fp32 and bf16.

    model_parity_smollm2.py LF_DUMP_LOGITS LF_EVALUATE_WINDOWS MODEL
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from model_parity import ours, worst_difference
from transformers import AutoModelForCausalLM, AutoTokenizer

# Prose that every Debian machine has.
TEXT = Path("/usr/share/common-licenses/GPL-3")

# As in model_parity.py, for 30 layers in place of 3 and sums of up to 1536 terms.
LOGIT_TOLERANCE = 5e-4
# Required by the project; bf16 rounds a token's NLL by about 0.005, which a mean over
# 2,000 tokens brings to 0.01 %.
PERPLEXITY_TOLERANCE = 1e-3


def reference_nll(model, windows):
    """Mean NLL of each window, one at a time, in the model's type with an fp32 loss."""
    with torch.no_grad():
        return [
            float(model(input_ids=w[None], labels=w[None]).loss)
            for w in torch.from_numpy(windows.astype(np.int64))
        ]


def check(label, difference, tolerance, detail):
    fine = bool(np.isfinite(difference)) and difference <= tolerance
    print(
        f"{'ok  ' if fine else 'FAIL'} {label}: {difference:.1e}, at most {tolerance:.0e} {detail}",
        flush=True,
    )
    return fine


def compare_perplexity(tool, folder, dtype, ids, length, count):
    windows = ids[: length * count].reshape(count, length)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    expected = float(np.exp(np.mean(reference_nll(model, windows))))
    with tempfile.NamedTemporaryFile() as file:
        windows.astype(np.int32).tofile(file.name)
        run = subprocess.run(
            [tool, folder, file.name, str(length), dtype],
            check=True,
            stdout=subprocess.PIPE,
            timeout=300,
        )
    seen = json.loads(run.stdout)["perplexity"]
    detail = f"({seen:.5f} against {expected:.5f})"
    return check(
        f"perplexity {dtype}", abs(seen / expected - 1), PERPLEXITY_TOLERANCE, detail
    )


def main():
    dump_logits, evaluate_windows, folder = sys.argv[1:]
    if not Path(folder, "config.json").exists():
        sys.exit(f"{folder} holds no model: scripts/build prepares it")
    ids = np.array(AutoTokenizer.from_pretrained(folder)(TEXT.read_text())["input_ids"])

    positions = [0, 1, 100, 298, 299]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        inputs = torch.from_numpy(ids[:300].astype(np.int64))[None]
        expected = model(input_ids=inputs).logits[0, positions].numpy()
    del model
    seen = ours(dump_logits, folder, ids[:300], positions)
    good = check("logits float32", worst_difference(seen, expected), LOGIT_TOLERANCE, "")
    good &= compare_perplexity(evaluate_windows, folder, "float32", ids, 512, 2)
    good &= compare_perplexity(evaluate_windows, folder, "bfloat16", ids, 1024, 2)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
