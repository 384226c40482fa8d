"""The model code of artifacts against transformers' own models.

The reference is slow and explicit: the family's Hugging Face model with k_proj and v_proj
replaced by the product of the factors.
"""

import functools
import os
import tempfile
import unittest
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="latentforge-modules-"))

import artifact_fixtures as fixtures
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

logging.disable_progress_bar()

# fp32 rounding grows with depth and with the norm of the activations; logits here are of
# order 1 to 10 and sums have at most 160 terms: 160 * 2^-24 * 10 = 1e-4.
TOLERANCE = 1e-4


def load(folder, **options):
    options.setdefault("dtype", torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


def tokens(batch, length, seed=1):
    return torch.randint(3, 160, (batch, length), generator=torch.Generator().manual_seed(seed))


def every_artifact(test):
    """Runs test(self, model, reference, folder) for each family and kind of latent."""

    @functools.wraps(test)
    def run(self):
        for family in fixtures.FAMILIES:
            for joint in (False, True):
                with self.subTest(family=family, joint=joint), torch.no_grad():
                    root = self.root / f"{family}-{joint}"
                    folder, reference = fixtures.make_artifact(family, root, joint)
                    test(self, load(folder), reference, folder)

    return run


class ArtifactCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        torch.set_num_threads(1)

    def assert_close(self, got, want, tolerance=TOLERANCE):
        worst = (got - want).abs().argmax().item()
        difference = (got - want).abs().flatten()[worst].item()
        self.assertLessEqual(
            difference,
            tolerance,
            f"element {worst}: {got.flatten()[worst]} and {want.flatten()[worst]}",
        )


class LogitsTest(ArtifactCase):
    @every_artifact
    def test_equal_the_multiplied_out_model(self, model, reference, folder):
        ids = tokens(2, 40)
        self.assert_close(model(ids).logits, reference(ids).logits)

    @every_artifact
    def test_equal_at_far_positions(self, model, reference, folder):
        ids, far = tokens(1, 12), torch.arange(400, 412)[None]
        self.assert_close(
            model(ids, position_ids=far).logits, reference(ids, position_ids=far).logits
        )

    @every_artifact
    def test_equal_with_left_padding_eager_and_sdpa(self, model, reference, folder):
        ids = tokens(2, 20)
        mask = torch.ones_like(ids)
        mask[0, :9] = 0
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        want = reference(ids, attention_mask=mask, position_ids=positions).logits
        for other in (model, load(folder, attn_implementation="eager")):
            got = other(ids, attention_mask=mask, position_ids=positions).logits
            self.assert_close(got[mask.bool()], want[mask.bool()])

    def test_full_ranks_equal_the_original(self):
        ids = tokens(1, 30)
        for family in fixtures.FAMILIES:
            for joint in (False, True):
                with self.subTest(family=family, joint=joint), torch.no_grad():
                    root = self.root / f"{family}-{joint}"
                    folder, reference = fixtures.make_artifact(
                        family, root, joint, ranks=fixtures.full_ranks
                    )
                    self.assert_close(load(folder)(ids).logits, reference(ids).logits)

    @every_artifact
    def test_loss_logits_to_keep_and_hidden_states(self, model, reference, folder):
        ids = tokens(2, 16)
        got = model(ids, labels=ids, output_hidden_states=True)
        want = reference(ids, labels=ids, output_hidden_states=True)
        self.assert_close(got.loss, want.loss)
        self.assertEqual(len(got.hidden_states), len(want.hidden_states))
        for ours, theirs in zip(got.hidden_states, want.hidden_states):
            self.assert_close(ours, theirs)
        self.assert_close(model(ids, logits_to_keep=3).logits, want.logits[:, -3:])


class CacheTest(ArtifactCase):
    @every_artifact
    def test_steps_equal_one_pass(self, model, reference, folder):
        ids = tokens(2, 24)
        want = model(ids, use_cache=False).logits
        # With the cache that drops tokens behind the window, and with one that keeps all.
        for cache in (DynamicCache(config=model.config), DynamicCache()):
            parts = [
                model(ids[:, begin:end], past_key_values=cache, use_cache=True).logits
                for begin, end in ((0, 10), (10, 11), (11, 12), (12, 17), (17, 24))
            ]
            self.assert_close(torch.cat(parts, 1), want)

    @every_artifact
    def test_holds_the_latents_and_nothing_else(self, model, reference, folder):
        length = 24
        for dtype in (torch.float32, torch.bfloat16):
            model = load(folder, dtype=dtype)
            cache = DynamicCache()
            model.generate(
                tokens(2, length),
                past_key_values=cache,
                max_new_tokens=5,
                do_sample=False,
            )
            for layer, entry in enumerate(model.config.latentforge["ranks"]):
                stored = cache.layers[layer]
                held = sum(
                    t.untyped_storage().nbytes() for t in (stored.keys, stored.values)
                )
                # The last generated token has not been fed back.
                self.assertEqual(held, 2 * (length + 4) * sum(entry) * dtype.itemsize)


class GenerationTest(ArtifactCase):
    def assert_same_tokens(self, model, reference, **options):
        options = dict(max_new_tokens=12, min_new_tokens=12, pad_token_id=0, **options)
        with_cache = model.generate(use_cache=True, **options)
        self.assertEqual(with_cache.tolist(), model.generate(use_cache=False, **options).tolist())
        self.assertEqual(with_cache.tolist(), reference.generate(**options).tolist())

    @every_artifact
    def test_greedy(self, model, reference, folder):
        self.assert_same_tokens(model, reference, inputs=tokens(2, 9), do_sample=False)

    @every_artifact
    def test_left_padded_batch(self, model, reference, folder):
        ids = tokens(3, 14)
        mask = torch.ones_like(ids)
        mask[0, :8], mask[1, :3] = 0, 0
        ids = ids * mask
        self.assert_same_tokens(
            model, reference, inputs=ids, attention_mask=mask, do_sample=False
        )
        alone = model.generate(
            ids[:1, 8:], max_new_tokens=12, min_new_tokens=12, pad_token_id=0, do_sample=False
        )
        together = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=12,
            min_new_tokens=12,
            pad_token_id=0,
            do_sample=False,
        )
        self.assertEqual(alone[0, 6:].tolist(), together[0, 14:].tolist())

    @every_artifact
    def test_beams(self, model, reference, folder):
        ids = tokens(2, 9)
        mask = torch.ones_like(ids)
        mask[0, :4] = 0
        self.assert_same_tokens(
            model, reference, inputs=ids * mask, attention_mask=mask, num_beams=3,
            do_sample=False,
        )

    @every_artifact
    def test_sampling(self, model, reference, folder):
        drawn = []
        for use_cache in (True, False):
            torch.manual_seed(5)
            drawn.append(
                model.generate(
                    tokens(2, 9), do_sample=True, max_new_tokens=10, use_cache=use_cache
                ).tolist()
            )
        self.assertEqual(drawn[0], drawn[1])


class FilesTest(ArtifactCase):
    @every_artifact
    def test_saves_and_loads_again(self, model, reference, folder):
        ids = tokens(1, 20)
        saved = folder.parent / "saved"
        model.save_pretrained(saved)
        again = load(saved)
        self.assertEqual(model.config.latentforge, again.config.latentforge)
        self.assertTrue(torch.equal(model(ids).logits, again(ids).logits))

    @every_artifact
    def test_loads_in_bfloat16(self, model, reference, folder):
        ids = tokens(1, 20)
        model = load(folder, dtype=torch.bfloat16)
        self.assertEqual({p.dtype for p in model.parameters()}, {torch.bfloat16})
        # Against the fp32 logits: bf16 has 8 bits, and the errors of three layers add up.
        got, want = model(ids).logits.float(), reference(ids).logits
        self.assertLess(((got - want).norm() / want.norm()).item(), 0.06)

    def test_refuses_ranks_that_do_not_fit(self):
        folder, _ = fixtures.make_artifact("llama", self.root, joint=False)
        text = (folder / "config.json").read_text()
        config = text.replace('"format_version": 1', '"format_version": 3')
        (folder / "config.json").write_text(config)
        with self.assertRaisesRegex(ValueError, "format_version is 3"):
            load(folder)


if __name__ == "__main__":
    unittest.main()
