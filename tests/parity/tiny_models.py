"""Tiny random checkpoints of every supported family, as transformers writes them.

    tiny_models.py --family qwen3 --out DIR [--seed 1] [--dtype bfloat16] [--shards]
    tiny_models.py --list

Each folder has config.json, safetensors and a small byte-level tokenizer.json, so that
the whole conversion can run on it.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 320

_COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=16384,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=None,
    tie_word_embeddings=False,
)

LLAMA3_SCALING = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=256,
)

# What each family has that the others lack. A window of 48 is shorter than every
# sequence that the tests use.
FAMILIES = {
    "llama2-mha": dict(model_type="llama", num_key_value_heads=4),
    "llama3-gqa": dict(model_type="llama", rope_theta=500000.0),
    "llama3-scaled": dict(model_type="llama", rope_theta=10000.0, rope_scaling=LLAMA3_SCALING),
    "llama-mqa": dict(model_type="llama", num_key_value_heads=1),
    "llama-bias": dict(model_type="llama", attention_bias=True, mlp_bias=True),
    "smollm2": dict(
        model_type="llama",
        tie_word_embeddings=True,
        num_attention_heads=3,
        num_key_value_heads=1,
        hidden_size=48,
        rope_theta=100000.0,
    ),
    "mistral": dict(model_type="mistral", sliding_window=48),
    "mistral-full": dict(model_type="mistral", sliding_window=None),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True),
    "qwen2-window": dict(
        model_type="qwen2", use_sliding_window=True, sliding_window=48, max_window_layers=1
    ),
    "qwen3": dict(model_type="qwen3", rope_theta=1000000.0, head_dim=32),
    "opt": dict(model_type="opt", ffn_dim=96, tie_word_embeddings=True),
    # As OPT-350m: norms behind attention and MLP, an embedding of another width.
    "opt-350m": dict(
        model_type="opt",
        ffn_dim=96,
        tie_word_embeddings=True,
        do_layer_norm_before=False,
        word_embed_proj_dim=40,
    ),
    "opt-plain": dict(model_type="opt", ffn_dim=96, enable_bias=False),
}
# Of _COMMON, what OPT has no setting for.
_NOT_OPT = ("intermediate_size", "num_key_value_heads", "head_dim")

_TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "A checkpoint holds weights; a tokenizer turns text into numbers and back again.",
    "In the beginning there was a list of words, and the words were counted.",
]


def make_tokenizer():
    """A byte-level BPE that covers every text, with VOCABULARY tokens at most."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def randomise(model, seed):
    """Weights large enough that attention is far from uniform, and biases not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
            offset = 1.0 if name.endswith("norm.weight") else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * scale + offset)


def make_model(family, out, seed=1, dtype=torch.float32, sharded=False, **changes):
    """Writes the checkpoint and its tokenizer to the folder `out`."""
    settings = {**_COMMON, **FAMILIES[family], **changes}
    if settings["model_type"] == "opt":
        settings = {key: value for key, value in settings.items() if key not in _NOT_OPT}
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, seed)
    model.to(dtype).save_pretrained(out, max_shard_size="150KB" if sharded else "5GB")
    make_tokenizer().save_pretrained(out)
    return Path(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the families")
    parser.add_argument("--family", choices=sorted(FAMILIES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, default=_COMMON["num_hidden_layers"])
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32"
    )
    parser.add_argument("--shards", action="store_true", help="several safetensors files")
    options = parser.parse_args()
    if options.list:
        print("\n".join(FAMILIES))
        return
    if not options.family or not options.out:
        parser.error("--family and --out are needed")
    make_model(
        options.family,
        options.out,
        options.seed,
        getattr(torch, options.dtype),
        options.shards,
        num_hidden_layers=options.layers,
    )


if __name__ == "__main__":
    main()
