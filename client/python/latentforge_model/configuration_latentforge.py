"""Configuration of a decoder with low-rank linear maps, or with latents in its key-value cache.

Part of latentforge; every converted checkpoint carries a copy.
"""

import math

import torch
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LATENT_FORMAT = 1
LOW_RANK_FORMAT = 2
BASE_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "opt")
# OPT's own names in its configuration, for what every family has.
_OPT_NAMES = {"intermediate_size": "ffn_dim", "hidden_act": "activation_function"}
LAYER_NORM_EPSILON = 1e-5  # OPT has no key for it

# Keys that belong to this class, or to loading, and not to the base model.
_OWN_KEYS = {
    "model_type",
    "architectures",
    "auto_map",
    "latentforge",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "name_or_path",
    "_name_or_path",
    "_commit_hash",
    "attn_implementation",
    "_attn_implementation",
}


class LatentforgeConfig(PretrainedConfig):
    """The source model's configuration plus `latentforge`, a dictionary with

    - `format_version`: 1 (latents of keys and values) or 2 (low-rank linear maps),
    - `base_model_type`: "llama", "mistral", "qwen2", "qwen3" or "opt",

    and for format version 1

    - `latent`: "separate" (one latent for keys, one for values) or "joint" (one for both),
    - `ranks`: one entry a layer, `[r_k, r_v]` or `[r]`; the full width means that the
      projection is dense and its output is what is cached,

    for format version 2

    - `method`: "low_rank",
    - `block_identity`: whether r columns of each map's first factor are the identity,
    - `bias`: whether every low-rank map has a bias, also where the base model has none,
    - `ranks`: one entry a layer, `{"q": r, "k": r, "v": r, "o": r, "gate": r, "up": r,
      "down": r}`; 0 means that the map is dense, or the gate of an MLP without one.

    Keys that the source leaves out take the defaults of the base model's own class.
    """

    model_type = "latentforge"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(self, latentforge=None, **kwargs):
        latentforge = latentforge or _unconverted(kwargs)
        base_type = latentforge.get("base_model_type")
        if base_type not in BASE_MODEL_TYPES:
            raise ValueError(
                f"latentforge.base_model_type is {base_type!r}, expected one of {BASE_MODEL_TYPES}"
            )
        base = CONFIG_MAPPING[base_type](
            **{key: value for key, value in kwargs.items() if key not in _OWN_KEYS}
        )
        normalised = {
            key: value for key, value in base.to_dict().items() if key not in _OWN_KEYS
        }
        own = {key: value for key, value in kwargs.items() if key in _OWN_KEYS}
        own.pop("model_type", None)
        # Both spellings of the rotary settings would make the parent convert them twice.
        super().__init__(
            **own, tie_word_embeddings=bool(normalised.get("tie_word_embeddings", False))
        )
        for key, value in normalised.items():
            setattr(self, key, value)
        if getattr(self, "head_dim", None) is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.latentforge = dict(latentforge)
        _check(self)

    def to_diff_dict(self):
        # Nothing may be left out as a default: the defaults depend on the base model.
        return self.to_dict()

    @property
    def _is_opt(self):
        return self.latentforge["base_model_type"] == "opt"

    @property
    def layer_norms(self):
        """LayerNorms of the hidden states in place of RMSNorms."""
        return self._is_opt

    @property
    def learned_positions(self):
        """Embeddings of positions in place of rotated queries and keys."""
        return self._is_opt

    @property
    def gated(self):
        """Whether the MLP has a gate."""
        return not self._is_opt

    def setting(self, name):
        """A setting of the base model by its name in Llama's configuration."""
        return getattr(self, _OPT_NAMES.get(name, name) if self._is_opt else name)

    @property
    def norms_before(self):
        """Whether norms stand before attention and MLP, and one behind the last layer."""
        return not self._is_opt or self.do_layer_norm_before

    @property
    def embedding_size(self):
        return self.word_embed_proj_dim if self._is_opt else self.hidden_size

    @property
    def key_value_heads(self):
        return self.num_attention_heads if self._is_opt else self.num_key_value_heads

    @property
    def key_value_width(self):
        return self.key_value_heads * self.head_dim

    @property
    def is_low_rank(self):
        return self.latentforge["format_version"] == LOW_RANK_FORMAT

    @property
    def is_joint(self):
        return self.latentforge["latent"] == "joint"

    def layer_ranks(self, layer):
        """The ranks of one layer: (r_k, r_v), or (r,) when the latent is joint, or
        a dictionary of those of the linear maps."""
        ranks = self.latentforge["ranks"][layer]
        return dict(ranks) if self.is_low_rank else tuple(ranks)

    def linear_maps(self):
        """(inputs, outputs, bias in the base model) of each linear map of a layer; no inputs
        and no outputs for a gate that the base model lacks."""
        base, hidden = self.latentforge["base_model_type"], self.hidden_size
        queries, width = self.num_attention_heads * self.head_dim, self.key_value_width
        own = base in ("llama", "qwen3") and bool(getattr(self, "attention_bias", False))
        mlp = base == "llama" and bool(getattr(self, "mlp_bias", False))
        if self._is_opt:
            own = mlp = self.enable_bias
        inner = self.setting("intermediate_size")
        maps = {
            "q": (hidden, queries, own or base == "qwen2"),
            "k": (hidden, width, own or base == "qwen2"),
            "v": (hidden, width, own or base == "qwen2"),
            "o": (queries, hidden, own),
            "gate": (hidden, inner, mlp),
            "up": (hidden, inner, mlp),
            "down": (inner, hidden, mlp),
        }
        if self._is_opt:
            maps["gate"] = (0, 0, False)
        return maps

    def window_of(self, layer):
        """The sliding window of one layer, or None."""
        window = getattr(self, "sliding_window", None)
        types = getattr(self, "layer_types", None)
        if types is not None and types[layer] != "sliding_attention":
            return None
        return window

    def rotary(self):
        """The rotary settings as one dictionary with rope_type and rope_theta."""
        settings = dict(getattr(self, "rope_parameters", None) or {})
        if not settings:
            settings = dict(getattr(self, "rope_scaling", None) or {})
            settings.setdefault("rope_theta", getattr(self, "rope_theta", 10000.0))
        settings.setdefault("rope_type", settings.get("type", "default"))
        return settings


def rotary_frequencies(config):
    """Angles per position, [head_dim / 2], fp32 on the CPU.

    Llama 3 lengthens the wavelengths beyond the original context by `factor` and
    blends between the two thresholds.
    """
    settings = config.rotary()
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / (settings["rope_theta"] ** exponents)
    kind = settings["rope_type"]
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / settings["factor"]
    if kind != "llama3":
        raise ValueError(f"rope_type is {kind!r}, expected 'default', 'linear' or 'llama3'")
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    original = settings["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    stretched = frequencies / settings["factor"]
    share = (original / wavelengths - low) / (high - low)
    blended = (1 - share) * stretched + share * frequencies
    frequencies = torch.where(wavelengths > original / low, stretched, frequencies)
    between = (wavelengths <= original / low) & (wavelengths >= original / high)
    return torch.where(between, blended, frequencies)


def _unconverted(kwargs):
    """What describes a model whose projections are all dense; for LatentforgeConfig()."""
    base = CONFIG_MAPPING["llama"](
        **{key: value for key, value in kwargs.items() if key not in _OWN_KEYS}
    )
    width = base.num_key_value_heads * base.head_dim
    return {
        "format_version": LATENT_FORMAT,
        "base_model_type": "llama",
        "latent": "separate",
        "ranks": [[width, width] for _ in range(base.num_hidden_layers)],
    }


def _check(config):
    settings = config.latentforge
    version = settings.get("format_version")
    if version not in (LATENT_FORMAT, LOW_RANK_FORMAT):
        raise ValueError(
            f"latentforge.format_version is {version!r}, "
            f"this model code reads {LATENT_FORMAT} and {LOW_RANK_FORMAT}"
        )
    ranks = settings.get("ranks") or []
    if len(ranks) != config.num_hidden_layers:
        raise ValueError(
            f"latentforge.ranks has {len(ranks)} entries, expected {config.num_hidden_layers}"
        )
    if version == LATENT_FORMAT:
        _check_latents(config, settings, ranks)
    else:
        _check_low_rank(config, settings, ranks)
    if config._is_opt:
        _check_opt(config)


def _check_opt(config):
    for key, expected in (
        ("activation_function", "relu"),
        ("layer_norm_elementwise_affine", True),
        ("_remove_final_layer_norm", False),
    ):
        if getattr(config, key) != expected:
            raise ValueError(f"{key} is {getattr(config, key)!r}, expected {expected!r}")


def _check_latents(config, settings, ranks):
    if settings.get("latent") not in ("separate", "joint"):
        raise ValueError(
            f"latentforge.latent is {settings.get('latent')!r}, expected 'separate' or 'joint'"
        )
    joint = settings["latent"] == "joint"
    count, limit = (1, 2 * config.key_value_width) if joint else (2, config.key_value_width)
    for layer, entry in enumerate(ranks):
        if len(entry) != count or not all(1 <= rank <= limit for rank in entry):
            raise ValueError(
                f"latentforge.ranks[{layer}] is {entry}, expected {count} from 1 to {limit}"
            )


def _check_low_rank(config, settings, ranks):
    if settings.get("method") != "low_rank":
        raise ValueError(f"latentforge.method is {settings.get('method')!r}, expected 'low_rank'")
    for key in ("block_identity", "bias"):
        if not isinstance(settings.get(key), bool):
            raise ValueError(f"latentforge.{key} is {settings.get(key)!r}, expected true or false")
    maps = config.linear_maps()
    for layer, entry in enumerate(ranks):
        if not isinstance(entry, dict) or entry.keys() != maps.keys():
            raise ValueError(
                f"latentforge.ranks[{layer}] is {entry!r}, expected a rank for each of {[*maps]}"
            )
        for name, rank in entry.items():
            inputs, outputs, _ = maps[name]
            if inputs == 0:
                largest = 0
            elif settings["block_identity"]:
                largest = min(inputs, outputs) - 1
            else:
                largest = (inputs * outputs - 1) // (inputs + outputs)
            if type(rank) is not int or not 0 <= rank <= largest:
                raise ValueError(
                    f"latentforge.ranks[{layer}][{name!r}] is {rank!r}, expected 0 (dense) or 1 "
                    f"to {largest}, where the factors are smaller than the map"
                )
