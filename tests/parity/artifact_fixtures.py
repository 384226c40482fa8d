"""Tiny random checkpoints of every family and artifacts of the same format as ours.

Artifacts are built here in Python, from docs/artifact.md alone, so that the model code is
checked apart from the C++ writer.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_CODE = REPOSITORY / "client" / "python" / "latentforge_model"

_COMMON = dict(
    vocab_size=160,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=512,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
)

# What each family has that the others lack.
FAMILIES = {
    "llama": dict(model_type="llama", tie_word_embeddings=True),
    "llama-bias": dict(model_type="llama", attention_bias=True, mlp_bias=True),
    "llama3": dict(
        model_type="llama",
        rope_theta=10000.0,
        rope_scaling=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "mistral": dict(model_type="mistral", sliding_window=7),
    "mistral-full": dict(model_type="mistral", sliding_window=None),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True),
    "qwen2-window": dict(
        model_type="qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen3": dict(model_type="qwen3", attention_bias=False, rope_theta=1000000.0),
    "opt": dict(model_type="opt", ffn_dim=80),
    # Norms behind attention and MLP, and an embedding of another width, as OPT-350m.
    "opt-350m": dict(
        model_type="opt", ffn_dim=80, do_layer_norm_before=False, word_embed_proj_dim=36
    ),
    "opt-plain": dict(
        model_type="opt", ffn_dim=80, enable_bias=False, tie_word_embeddings=False
    ),
}
# Of _COMMON, what OPT has no setting for.
_NOT_OPT = ("intermediate_size", "num_key_value_heads", "head_dim")

# What artifacts call OPT's modules (docs/artifact.md).
_OPT_NAMES = (
    ("model.decoder.final_layer_norm.", "model.norm."),
    ("model.decoder.", "model."),
    (".self_attn_layer_norm.", ".input_layernorm."),
    (".final_layer_norm.", ".post_attention_layernorm."),
    (".self_attn.out_proj.", ".self_attn.o_proj."),
    (".fc1.", ".mlp.up_proj."),
    (".fc2.", ".mlp.down_proj."),
)


def artifact_name(name):
    """The name in artifacts of a tensor that transformers calls `name`."""
    if name.startswith("model.decoder."):
        for theirs, ours in _OPT_NAMES:
            name = name.replace(theirs, ours)
    return name


def artifact_modules(model):
    """The modules of transformers' model by their names in artifacts."""
    return {artifact_name(name + ".")[:-1]: module for name, module in model.named_modules()}


def make_source(family, folder, seed=0):
    """Saves a random model of the family in fp32; returns it."""
    settings = {**_COMMON, **FAMILIES[family]}
    if settings["model_type"] == "opt":
        settings = {key: value for key, value in settings.items() if key not in _NOT_OPT}
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger than usual, so that attention is far from uniform; biases not zero.
            scale = 0.3 if parameter.ndim == 1 else 1.6 / parameter.shape[-1] ** 0.5
            offset = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(torch.randn_like(parameter) * scale + offset)
    model.save_pretrained(folder)
    return model.eval()


def split(weight, rank, generator):
    """Random factors of the given rank, of about the weight's size."""
    m, d = weight.shape
    up = torch.randn(m, rank, generator=generator) / rank**0.5
    down = torch.randn(rank, d, generator=generator) * weight.std()
    return up, down


def convert_state(state, config, ranks, joint, seed=0):
    """The artifact's tensors, and the source's with k_proj and v_proj multiplied out."""
    generator = torch.Generator().manual_seed(seed)
    artifact, reference = dict(state), dict(state)
    width = config.num_key_value_heads * config.head_dim
    for layer, entry in enumerate(ranks):
        prefix = f"model.layers.{layer}.self_attn."
        if joint and entry[0] < 2 * width:
            both = torch.cat([state[prefix + f"{x}_proj.weight"] for x in "kv"])
            up, down = split(both, entry[0], generator)
            artifact[prefix + "kv_down_proj.weight"] = down
            parts = {"k": (up[:width], down), "v": (up[width:], down)}
        elif joint:
            continue
        else:
            parts = {
                x: split(state[prefix + f"{x}_proj.weight"], rank, generator)
                for x, rank in zip("kv", entry)
                if rank < width
            }
            for x, (_, down) in parts.items():
                artifact[prefix + f"{x}_down_proj.weight"] = down
        for x, (up, down) in parts.items():
            artifact[prefix + f"{x}_up_proj.weight"] = up.contiguous()
            del artifact[prefix + f"{x}_proj.weight"]
            bias = artifact.pop(prefix + f"{x}_proj.bias", None)
            if bias is not None:
                artifact[prefix + f"{x}_up_proj.bias"] = bias
            reference[prefix + f"{x}_proj.weight"] = (up.double() @ down.double()).float()
    return artifact, reference


def write_artifact(source, folder, state, section):
    """An artifact folder as docs/artifact.md describes it, without manifest and report.

    `section` is what config.json has under "latentforge", but for base_model_type.
    """
    folder.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    config["latentforge"] = dict(base_model_type=config["model_type"], **section)
    config["model_type"] = "latentforge"
    config["architectures"] = ["LatentforgeForCausalLM"]
    config["auto_map"] = {
        "AutoConfig": "configuration_latentforge.LatentforgeConfig",
        "AutoModelForCausalLM": "modeling_latentforge.LatentforgeForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for file in MODEL_CODE.glob("*.py"):
        shutil.copy(file, folder)
    if config.get("tie_word_embeddings"):
        state = {name: value for name, value in state.items() if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def some_ranks(config, joint):
    """Different in each layer, one of them dense."""
    width = config.num_key_value_heads * config.head_dim
    if joint:
        return [[9], [2 * width], [width + 3]][: config.num_hidden_layers]
    return [[7, 5], [width, 11], [13, width]][: config.num_hidden_layers]


def full_ranks(config, joint):
    width = config.num_key_value_heads * config.head_dim
    return [[2 * width] if joint else [width, width]] * config.num_hidden_layers


def convert_model(model, joint, ranks_of, seed=0):
    """(ranks, the artifact's tensors); `model` becomes what they multiply out to."""
    config = model.config
    if getattr(config, "head_dim", None) is None:
        config.head_dim = config.hidden_size // config.num_attention_heads
    if getattr(config, "num_key_value_heads", None) is None:
        config.num_key_value_heads = config.num_attention_heads
    ranks = ranks_of(config, joint)
    names = {artifact_name(name): name for name in model.state_dict()}
    state = {ours: model.state_dict()[name].clone() for ours, name in names.items()}
    artifact, reference = convert_state(state, config, ranks, joint, seed)
    model.load_state_dict({names[ours]: value for ours, value in reference.items()})
    return ranks, artifact


def make_artifact(family, root, joint, ranks=some_ranks, seed=0):
    """(folder of the artifact, the Hugging Face model that it must equal)."""
    root = Path(root)
    source = root / f"{family}-source"
    model = make_source(family, source, seed)
    ranks, artifact = convert_model(model, joint, ranks, seed)
    folder = root / f"{family}-{'joint' if joint else 'separate'}"
    section = dict(format_version=1, latent="joint" if joint else "separate", ranks=ranks)
    return write_artifact(source, folder, artifact, section), model
