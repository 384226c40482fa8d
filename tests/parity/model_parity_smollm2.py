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
# Required by the project.
PERPLEXITY_TOLERANCE = 1e-3
# Two orders of the same sums in bf16 differ by about 0.002 in the mean NLL of a window of 1,024
# tokens, either way. The mean over windows may differ by the requirement and by this many of its
# standard errors, as far as the windows show them.
NOISE_ERRORS = 3


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


def our_nll(tool, folder, dtype, windows):
    with tempfile.NamedTemporaryFile() as file:
        windows.astype(np.int32).tofile(file.name)
        run = subprocess.run(
            [tool, folder, file.name, str(windows.shape[1]), dtype],
            check=True,
            stdout=subprocess.PIPE,
            timeout=300,
        )
    return np.array(json.loads(run.stdout)["window_nll"])


def compare_perplexity(tool, folder, dtype, windows):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    expected = np.array(reference_nll(model, windows))
    seen = our_nll(tool, folder, dtype, windows)
    difference = seen - expected
    tolerance = PERPLEXITY_TOLERANCE
    if dtype != "float32":
        tolerance += NOISE_ERRORS * difference.std(ddof=1) / np.sqrt(len(windows))
    detail = f"({np.exp(seen.mean()):.5f} against {np.exp(expected.mean()):.5f})"
    return check(f"perplexity {dtype}", abs(np.expm1(difference.mean())), tolerance, detail)


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
    windows = ids[: 6 * 1024].reshape(6, 1024)
    good = check("logits float32", worst_difference(seen, expected), LOGIT_TOLERANCE, "")
    good &= compare_perplexity(evaluate_windows, folder, "float32", windows[:2, :512])
    good &= compare_perplexity(evaluate_windows, folder, "bfloat16", windows)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
