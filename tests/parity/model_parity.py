"""Logits of our forward pass against transformers, on tiny models of every family.

    model_parity.py LF_DUMP_LOGITS [family...]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from tiny_models import FAMILIES, VOCABULARY, make_model
from transformers import AutoModelForCausalLM

# Both sides compute in fp32 (unit roundoff 6e-8) with sums in another order. A dot
# product of 64 to 96 terms is off by about 1e-6 of its size, a layer has seven in a row,
# a softmax over scores of size 10 multiplies errors by up to 10: three layers reach 2e-4
# at worst and a tenth of that as a rule. A wrong rotation, mask or head changes logits
# by their own size, which the controls below show.
TOLERANCE = 5e-5
SHORT = 64
FAR = 4200  # beyond 4096 and far beyond the 256 positions of the llama3 scaling


def ours(tool, folder, ids, positions):
    with tempfile.TemporaryDirectory() as scratch:
        ids_file, out_file = Path(scratch, "ids"), Path(scratch, "logits")
        ids.astype(np.int32).tofile(ids_file)
        arguments = [tool, folder, ids_file, out_file, "float32", *positions]
        subprocess.run([str(a) for a in arguments], check=True, timeout=300)
        return np.fromfile(out_file, np.float32).reshape(len(positions), -1)


def theirs(folder, ids, positions):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model.model(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0]
        return model.lm_head(states[positions]).numpy()


def worst_difference(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def compare(tool, name, folder):
    """Prints the worst difference relative to the largest logit; True when small."""
    ids = np.random.default_rng(7).integers(0, VOCABULARY, FAR)
    good = True
    for label, count, positions in (
        ("short", SHORT, list(range(SHORT))),
        ("far", FAR, [0, 47, 48, 255, 256, 1023, 2047, 2048, *range(4090, FAR)]),
    ):
        a = ours(tool, folder, ids[:count], positions)
        b = theirs(folder, ids[:count], positions)
        worst = worst_difference(a, b)
        row, column = np.unravel_index(np.abs(a - b).argmax(), a.shape)
        fine = bool(np.isfinite(a).all()) and worst <= TOLERANCE
        good &= fine
        print(
            f"{'ok  ' if fine else 'FAIL'} {name:24} {label:5} worst {worst:.1e} of the largest "
            f"logit (position {positions[row]}, token {column}: {a[row, column]:.6f} "
            f"against {b[row, column]:.6f})",
            flush=True,
        )
    return good


def control(tool, name, folder, change):
    """Our logits must change when config.json does: the comparison above sees it."""
    ids = np.random.default_rng(7).integers(0, VOCABULARY, FAR)
    positions = [FAR - 1]
    before = ours(tool, folder, ids, positions)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    moved = worst_difference(ours(tool, folder, ids, positions), before)
    fine = moved > 100 * TOLERANCE
    print(f"{'ok  ' if fine else 'FAIL'} control {name}: logits move by {moved:.1e}", flush=True)
    return fine


def drop_scaling(config):
    for key in ("rope_parameters", "rope_scaling"):
        if config.get(key):
            config[key] = {"rope_type": "default", "rope_theta": 10000.0}


def drop_window(config):
    config["sliding_window"] = None


def main():
    tool = sys.argv[1]
    families = sys.argv[2:] or list(FAMILIES)
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for family in families:
            good &= compare(tool, family, make_model(family, root / family))
        if not sys.argv[2:]:
            for dtype in (torch.bfloat16, torch.float16):
                name = f"llama3-gqa {str(dtype).removeprefix('torch.')}"
                folder = make_model("llama3-gqa", root / name, dtype=dtype)
                good &= compare(tool, name, folder)
            folder = make_model("llama2-mha", root / "sharded", sharded=True)
            assert (folder / "model.safetensors.index.json").exists()
            good &= compare(tool, "llama2-mha sharded", folder)
            good &= control(tool, "llama3 scaling", root / "llama3-scaled", drop_scaling)
            good &= control(tool, "sliding window", root / "mistral", drop_window)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
