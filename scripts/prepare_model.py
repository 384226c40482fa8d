"""Turns a Llama GGUF file with a byte-level BPE vocabulary into a Hugging Face folder.

Usage: prepare_model.py GGUF FOLDER

Weights are dequantised and rounded to bfloat16. Needs gguf, numpy and tokenizers; no
torch.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
SPECIAL_TOKENS = ("bos", "eos", "unknown", "padding")


def require(condition, message):
    if not condition:
        raise SystemExit(f"prepare_model.py: {message}")


class Source:
    """The metadata and tensors of a GGUF file."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)

    def get(self, key, default=None):
        field = self.reader.fields.get(key)
        require(field is not None or default is not None, f"the GGUF file lacks {key}")
        return default if field is None else field.contents()

    def special_ids(self):
        keys = {name: f"tokenizer.ggml.{name}_token_id" for name in SPECIAL_TOKENS}
        return {name: self.get(key) for name, key in keys.items() if key in self.reader.fields}


def hf_name(name):
    if name in OTHER_TENSORS:
        return OTHER_TENSORS[name]
    parts = name.split(".")
    known = len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_TENSORS
    require(known and parts[3] == "weight", f"unexpected tensor {name} in the GGUF file")
    return f"model.layers.{parts[1]}.{LAYER_TENSORS[parts[2]]}.weight"


def half_split_rows(weight, heads):
    """Undoes llama.cpp's row order of Q and K.

    llama.cpp rotates neighbouring rows (2i, 2i + 1) of a head, Hugging Face rows
    (i, i + head_dim / 2).
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def to_bfloat16(values):
    """Rounds to nearest, ties to even; returns the 16-bit patterns."""
    require(np.isfinite(values).all(), "the GGUF file holds weights that are not finite")
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path, tensors):
    """Writes bfloat16 bit patterns; numpy and the safetensors package lack the type."""
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, bits in tensors.items():
        begin, end = end, end + bits.nbytes
        header[name] = {"dtype": "BF16", "shape": bits.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for bits in tensors.values():
            file.write(bits.tobytes())


def write_weights(source, folder):
    heads = {
        "attn_q": source.get("llama.attention.head_count"),
        "attn_k": source.get("llama.attention.head_count_kv"),
    }
    tensors = {}
    for tensor in source.reader.tensors:
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            weight = half_split_rows(weight, heads[kind])
        tensors[hf_name(tensor.name)] = to_bfloat16(weight)
    write_safetensors(folder / "model.safetensors", tensors)
    return tensors


def build_tokenizer(source):
    require(source.get("tokenizer.ggml.model") == "gpt2", "the vocabulary is not byte-level BPE")
    # The GGUF file names the text splitting only by this word: digits stand alone,
    # then GPT-2's rule.
    splitting = source.get("tokenizer.ggml.pre")
    require(splitting == "smollm", f"unknown text splitting {splitting}")
    tokens = source.get("tokenizer.ggml.tokens")
    kinds = source.get("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in source.get("tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer, tokens


def model_config(source, tied):
    ids = source.special_ids()
    heads = source.get("llama.attention.head_count")
    width = source.get("llama.embedding_length")
    # Stored as float32: the shortest decimal that means the same float32.
    epsilon = float(str(np.float32(source.get("llama.attention.layer_norm_rms_epsilon"))))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids.get("bos"),
        "eos_token_id": ids.get("eos"),
        "pad_token_id": ids.get("padding"),
        "head_dim": source.get("llama.rope.dimension_count", width // heads),
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": source.get("llama.feed_forward_length"),
        "max_position_embeddings": source.get("llama.context_length"),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": source.get("llama.block_count"),
        "num_key_value_heads": source.get("llama.attention.head_count_kv"),
        "rms_norm_eps": epsilon,
        "rope_scaling": None,
        "rope_theta": source.get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(source.get("tokenizer.ggml.tokens")),
    }


def tokenizer_config(source, tokens):
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    config = {names[name]: tokens[index] for name, index in source.special_ids().items()}
    config.update({
        "add_prefix_space": source.get("tokenizer.ggml.add_space_prefix", False),
        "chat_template": source.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.get("llama.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
    return config


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(gguf_path, folder):
    source = Source(gguf_path)
    architecture = source.get("general.architecture")
    require(architecture == "llama", f"the GGUF file holds a {architecture} model, expected llama")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = write_weights(source, folder)
    config = model_config(source, tied="lm_head.weight" not in tensors)
    tokenizer, tokens = build_tokenizer(source)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", tokenizer_config(source, tokens))
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", generation)
    print(f"wrote {len(tensors)} tensors and {len(tokens)} tokens to {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
