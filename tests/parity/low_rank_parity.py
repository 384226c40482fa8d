"""Artifacts of the method low_rank: model code, our decoder and our writer against transformers.

The environment variable LATENTFORGE_BIN names the folder of lf_make_artifact and
lf_dump_logits.
"""

import functools
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import artifact_parity as parity
import artifact_writer_parity as writer_parity
import low_rank_fixtures as fixtures
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import DynamicCache

# artifact_parity.TOLERANCE is derived there: fp32, sums of at most 160 terms, logits below 10.
# A low-rank map adds a sum of at most 30 terms.


def every_artifact(test):
    """Runs test(self, model, reference, folder) for each family and layout."""

    @functools.wraps(test)
    def run(self):
        for family in fixtures.FAMILIES:
            for identity, bias in fixtures.LAYOUTS:
                with self.subTest(family=family, identity=identity, bias=bias), torch.no_grad():
                    root = self.root / f"{family}-{identity}-{bias}"
                    folder, reference, _ = fixtures.make_artifact(family, root, identity, bias)
                    test(self, parity.load(folder), reference, folder)

    return run


def our_logits(folder, ids, positions=()):
    """Logits of the positions (none: of all) by our decoder in fp32."""
    with tempfile.TemporaryDirectory() as scratch:
        ids_file, out_file = Path(scratch, "ids"), Path(scratch, "logits")
        ids.numpy().astype(np.int32).tofile(ids_file)
        command = [writer_parity.BIN / "lf_dump_logits", folder, ids_file, out_file, "float32"]
        subprocess.run([str(part) for part in (*command, *positions)], check=True, timeout=120)
        rows = len(positions) or ids.numel()
        return torch.from_numpy(np.fromfile(out_file, np.float32)).view(rows, -1)


class LogitsTest(parity.ArtifactCase):
    @every_artifact
    def test_equal_the_multiplied_out_model(self, model, reference, folder):
        ids = parity.tokens(2, 40)
        self.assert_close(model(ids).logits, reference(ids).logits)
        far = torch.arange(400, 412)[None]
        self.assert_close(
            model(ids[:1, :12], position_ids=far).logits,
            reference(ids[:1, :12], position_ids=far).logits,
        )

    @every_artifact
    def test_our_decoder_agrees_near_and_far(self, model, reference, folder):
        ids = parity.tokens(1, 500)
        positions = (0, 1, 7, 39, 255, *range(490, 500))
        want = reference(ids).logits[0, list(positions)]
        self.assert_close(model(ids).logits[0, list(positions)], want)
        self.assert_close(our_logits(folder, ids, positions), want)

    @every_artifact
    def test_equal_with_left_padding_eager_and_sdpa(self, model, reference, folder):
        ids = parity.tokens(2, 20)
        mask = torch.ones_like(ids)
        mask[0, :9] = 0
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        want = reference(ids, attention_mask=mask, position_ids=positions).logits
        for other in (model, parity.load(folder, attn_implementation="eager")):
            got = other(ids, attention_mask=mask, position_ids=positions).logits
            self.assert_close(got[mask.bool()], want[mask.bool()])

    def test_without_ranks_it_is_the_original(self):
        dense = [dict.fromkeys(fixtures.MAPS, 0)] * 3
        for family in fixtures.FAMILIES:
            with self.subTest(family=family), torch.no_grad():
                folder, reference, _ = fixtures.make_artifact(
                    family, self.root / family, bias=True, ranks=dense
                )
                ids = parity.tokens(1, 30)
                self.assert_close(parity.load(folder)(ids).logits, reference(ids).logits)

    def test_full_ranks_without_identity_are_the_original(self):
        """Oracle 7. No artifact holds ranks that save nothing: the modules take their place."""
        for family in fixtures.FAMILIES:
            with self.subTest(family=family), torch.no_grad():
                dense = [dict.fromkeys(fixtures.MAPS, 0)] * 3
                folder, reference, _ = fixtures.make_artifact(
                    family, self.root / family, ranks=dense
                )
                model = parity.load(folder)
                replaced = 0
                for name, linear in list(model.named_modules()):
                    if not name.endswith(tuple(fixtures.MAPS.values())):
                        continue
                    parent, _, child = name.rpartition(".")
                    setattr(model.get_submodule(parent), child, full_rank(model, linear))
                    replaced += 1
                self.assertEqual(replaced, 3 * (7 if model.config.gated else 6))
                ids = parity.tokens(1, 30)
                self.assert_close(model(ids).logits, reference(ids).logits)
                stepped = model.generate(ids, max_new_tokens=4, do_sample=False)
                self.assertEqual(
                    stepped.tolist(),
                    reference.generate(ids, max_new_tokens=4, do_sample=False).tolist(),
                )


def full_rank(model, linear):
    """The model code's low-rank module with factors of `linear` of full rank."""
    package = type(model).__module__.rpartition(".")[0]
    parts = sys.modules[f"{package}.parts_latentforge"]
    outputs, inputs = linear.weight.shape
    left, right = torch.linalg.qr(linear.weight.double())
    module = parts.LatentforgeLowRankLinear(
        inputs, outputs, min(inputs, outputs), linear.bias is not None, block_identity=False
    )
    module.up.weight.data, module.down.weight.data = left.float(), right.float()
    if linear.bias is not None:
        module.up.bias.data = linear.bias.data
    return module


class CacheTest(parity.ArtifactCase):
    @every_artifact
    def test_steps_equal_one_pass(self, model, reference, folder):
        """Oracle 13."""
        ids = parity.tokens(2, 24)
        want = model(ids, use_cache=False).logits
        for cache in (DynamicCache(config=model.config), DynamicCache()):
            parts = [
                model(ids[:, begin:end], past_key_values=cache, use_cache=True).logits
                for begin, end in ((0, 10), (10, 11), (11, 12), (12, 17), (17, 24))
            ]
            self.assert_close(torch.cat(parts, 1), want)

    @every_artifact
    def test_holds_the_latents_and_nothing_else(self, model, reference, folder):
        length, width = 24, model.config.key_value_width
        for dtype in (torch.float32, torch.bfloat16):
            model, cache = parity.load(folder, dtype=dtype), DynamicCache()
            model.generate(
                parity.tokens(2, length), past_key_values=cache, max_new_tokens=5, do_sample=False
            )
            for layer, ranks in enumerate(fixtures.RANKS):
                stored = cache.layers[layer]
                held = sum(t.untyped_storage().nbytes() for t in (stored.keys, stored.values))
                values = (ranks["k"] or width) + (ranks["v"] or width)
                # The last generated token has not been fed back.
                self.assertEqual(held, 2 * (length + 4) * values * dtype.itemsize)

    @every_artifact
    def test_generation_is_the_same_with_and_without(self, model, reference, folder):
        ids = parity.tokens(3, 14)
        mask = torch.ones_like(ids)
        mask[0, :8], mask[1, :3] = 0, 0
        options = dict(
            inputs=ids * mask, attention_mask=mask, max_new_tokens=12, pad_token_id=0,
            do_sample=False,
        )
        want = reference.generate(**options).tolist()
        for use_cache in (True, False):
            self.assertEqual(model.generate(use_cache=use_cache, **options).tolist(), want)


class FilesTest(parity.ArtifactCase):
    @every_artifact
    def test_memory_falls_as_the_ranks_say(self, model, reference, folder):
        identity = model.config.latentforge["block_identity"]
        maps = model.config.linear_maps()
        for layer, ranks in enumerate(fixtures.RANKS):
            module = model.model.layers[layer]
            for key, (inputs, outputs, _) in maps.items():
                if inputs == 0:
                    self.assertIsNone(module.mlp.gate_proj)
                    continue
                rank = ranks[key]
                want = rank * (inputs + outputs - rank * identity) or inputs * outputs
                held = [
                    parameter.untyped_storage().nbytes() // parameter.element_size()
                    for parameter in module.get_submodule(fixtures.MAPS[key]).parameters()
                    if parameter.ndim == 2
                ]
                self.assertEqual(sum(held), want, key)

    @every_artifact
    def test_saves_and_loads_again(self, model, reference, folder):
        ids = parity.tokens(1, 20)
        saved = folder.parent / "saved"
        model.save_pretrained(saved)
        again = parity.load(saved)
        self.assertEqual(model.config.latentforge, again.config.latentforge)
        self.assertTrue(torch.equal(model(ids).logits, again(ids).logits))

    @every_artifact
    def test_loads_in_bfloat16_with_its_orders(self, model, reference, folder):
        ids = parity.tokens(1, 20)
        rough = parity.load(folder, dtype=torch.bfloat16)
        self.assertEqual({p.dtype for p in rough.parameters()}, {torch.bfloat16})
        for name, order in rough.named_buffers():
            self.assertEqual(order.dtype, torch.int32, name)
            self.assertTrue(torch.equal(order, model.get_buffer(name)), name)
        # Against the fp32 logits: bf16 has 8 bits, and the errors of three layers add up.
        got, want = rough(ids).logits.float(), reference(ids).logits
        self.assertLess(((got - want).norm() / want.norm()).item(), 0.06)

    def test_refuses_what_is_malformed(self):
        folder, _, _ = fixtures.make_artifact("llama", self.root)
        path = folder / "config.json"
        whole = json.loads(path.read_text())
        for keys, value, problem in (
            (("method",), "sparse", "method is 'sparse'"),
            (("block_identity",), 1, "block_identity is 1"),
            (("bias",), None, "bias is None"),
            (("ranks",), [], "ranks has 0 entries, expected 3"),
            (("ranks", 1), [4, 4], r"ranks\[1\] is \[4, 4\]"),
            (("ranks", 1), {"q": 4}, r"ranks\[1\] is"),
            (("ranks", 2, "k"), 24, r"ranks\[2\]\['k'\] is 24, .* 1 to 23"),
            (("ranks", 2, "k"), -1, r"ranks\[2\]\['k'\] is -1"),
            (("ranks", 2, "k"), 1.5, r"ranks\[2\]\['k'\] is 1.5"),
            (("ranks", 2, "k"), True, r"ranks\[2\]\['k'\] is True"),
        ):
            config = json.loads(json.dumps(whole))
            inner = config["latentforge"]
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = value
            path.write_text(json.dumps(config))
            with self.subTest(keys=keys), self.assertRaisesRegex(ValueError, problem):
                parity.load(folder)

    def test_refuses_what_opt_does_not_have(self):
        folder, _, _ = fixtures.make_artifact("opt", self.root)
        path = folder / "config.json"
        whole = json.loads(path.read_text())
        gated = json.loads(json.dumps(whole))
        gated["latentforge"]["ranks"][0]["gate"] = 1
        for config, problem in (
            (gated, r"ranks\[0\]\['gate'\] is 1"),
            (dict(whole, activation_function="gelu"), "activation_function is 'gelu'"),
            (dict(whole, layer_norm_elementwise_affine=False), "elementwise_affine is False"),
            (dict(whole, _remove_final_layer_norm=True), "_remove_final_layer_norm is True"),
        ):
            path.write_text(json.dumps(config))
            with self.subTest(problem=problem), self.assertRaisesRegex(ValueError, problem):
                parity.load(folder)


class WriterTest(parity.ArtifactCase):
    """Artifacts that our writer made from the same factors."""

    def write(self, family, identity, bias, dtype="F32"):
        root = self.root / f"{family}-{identity}-{bias}-{dtype}"
        _, reference, state = fixtures.make_artifact(family, root, identity, bias)
        factors = (".order", ".down.weight", ".up.weight", ".up.bias")
        given = {name: value for name, value in state.items() if name.endswith(factors)}
        if not bias:
            # The source's biases are for the writer to find.
            given = {name: value for name, value in given.items() if ".bias" not in name}
        save_file(given, root / "factors.safetensors")
        layout = "low_rank" + "+identity" * identity + "+bias" * bias
        written = fixtures.ranks_of(family, fixtures.RANKS)
        ranks = ";".join(",".join(str(r[key]) for key in fixtures.MAPS) for r in written)
        command = [writer_parity.BIN / "lf_make_artifact", root / "source",
                   root / "factors.safetensors", root / "written", layout, dtype, ranks]
        subprocess.run([str(part) for part in command], check=True, timeout=120)
        return root / "written", reference

    def test_transformers_and_our_decoder_agree(self):
        ids = parity.tokens(1, 40)
        for family in fixtures.FAMILIES:
            for identity, bias in fixtures.LAYOUTS:
                with self.subTest(family=family, identity=identity, bias=bias), torch.no_grad():
                    folder, reference = self.write(family, identity, bias)
                    want = reference(ids).logits[0]
                    self.assert_close(parity.load(folder)(ids).logits[0], want)
                    self.assert_close(our_logits(folder, ids), want)

    def test_bfloat16_artifacts_agree(self):
        ids = parity.tokens(1, 40)
        for family in fixtures.FAMILIES:
            with self.subTest(family=family), torch.no_grad():
                folder, reference = self.write(family, True, True, "BF16")
                got, want = parity.load(folder)(ids).logits, reference(ids).logits
                # Only the stored weights are rounded: to 8 bits each.
                self.assertLess(((got - want).norm() / want.norm()).item(), 0.03)
                self.assert_close(our_logits(folder, ids), got[0])


if __name__ == "__main__":
    unittest.main()
