"""Artifacts that our writer made, loaded by transformers and by our own decoder.

The environment variable LATENTFORGE_BIN names the folder of lf_make_artifact and
lf_dump_logits.
"""

import functools
import hashlib
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="latentforge-modules-"))

import artifact_fixtures as fixtures
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()

BIN = Path(os.environ["LATENTFORGE_BIN"])
# As in artifact_parity.py: fp32, sums of at most 160 terms, logits below 10.
TOLERANCE = 1e-4


def write(family, joint, root, dtype="F32"):
    """(folder that our writer made, the Hugging Face model that it must equal)."""
    source = root / "source"
    model = fixtures.make_source(family, source)
    ranks, artifact = fixtures.convert_model(model, joint, fixtures.some_ranks)
    factors = {
        name: value.contiguous()
        for name, value in artifact.items()
        if name.endswith(("down_proj.weight", "up_proj.weight")) and ".self_attn." in name
    }
    save_file(factors, root / "factors.safetensors")
    command = [
        BIN / "lf_make_artifact",
        source,
        root / "factors.safetensors",
        root / "artifact",
        "joint" if joint else "separate",
        dtype,
        ";".join(",".join(str(rank) for rank in entry) for entry in ranks),
    ]
    subprocess.run([str(part) for part in command], check=True, timeout=120)
    return root / "artifact", model


def our_logits(folder, ids):
    """Logits of every position by our decoder in fp32."""
    with tempfile.TemporaryDirectory() as scratch:
        ids_file, out_file = Path(scratch, "ids"), Path(scratch, "logits")
        ids.numpy().astype(np.int32).tofile(ids_file)
        command = [BIN / "lf_dump_logits", folder, ids_file, out_file, "float32"]
        subprocess.run([str(part) for part in command], check=True, timeout=120)
        return torch.from_numpy(np.fromfile(out_file, np.float32)).view(ids.numel(), -1)


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()


def every_artifact(test):
    @functools.wraps(test)
    def run(self):
        for family in fixtures.FAMILIES:
            for joint in (False, True):
                with (
                    self.subTest(family=family, joint=joint),
                    torch.no_grad(),
                    tempfile.TemporaryDirectory() as root,
                ):
                    test(self, family, joint, Path(root))

    return run


class ArtifactWriterParity(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        self.ids = torch.randint(3, 160, (1, 40), generator=torch.Generator().manual_seed(2))

    def assert_close(self, got, want, what):
        difference = (got - want).abs()
        worst = difference.argmax().item()
        self.assertLessEqual(
            difference.max().item(),
            TOLERANCE,
            f"{what}: element {worst}: {got.flatten()[worst]} and {want.flatten()[worst]}",
        )

    @every_artifact
    def test_transformers_and_our_decoder_agree(self, family, joint, root):
        folder, reference = write(family, joint, root)
        want = reference(self.ids).logits[0]
        loaded = load(folder)
        self.assertEqual(loaded.dtype, torch.float32)
        self.assert_close(loaded(self.ids).logits[0], want, "transformers on the artifact")
        self.assert_close(our_logits(folder, self.ids), want, "our decoder on the artifact")

    @every_artifact
    def test_bfloat16_artifact_loads_as_such(self, family, joint, root):
        folder, reference = write(family, joint, root, "BF16")
        loaded = load(folder)
        self.assertEqual({p.dtype for p in loaded.parameters()}, {torch.bfloat16})
        # Computed in fp32, only the stored weights are rounded: to 8 bits each.
        got, want = loaded.float()(self.ids).logits, reference(self.ids).logits
        self.assertLess(((got - want).norm() / want.norm()).item(), 0.03)
        self.assert_close(our_logits(folder, self.ids), got[0], "our decoder on the artifact")

    def test_manifest_holds_for_an_independent_reader(self):
        with tempfile.TemporaryDirectory() as root:
            folder, _ = write("qwen2", False, Path(root))
            manifest = json.loads((folder / "manifest.json").read_text())
            listed = {entry["name"]: entry for entry in manifest["files"]}
            present = {file.name for file in folder.iterdir()} - {"manifest.json"}
            self.assertEqual(set(listed), present)
            for name, entry in listed.items():
                contents = (folder / name).read_bytes()
                self.assertEqual(entry["size"], len(contents))
                self.assertEqual(entry["sha256"], hashlib.sha256(contents).hexdigest())


if __name__ == "__main__":
    unittest.main()
