"""Configuration of a decoder whose key-value cache holds low-rank latents.

Part of latentforge; every converted checkpoint carries a copy.
"""

import math

import torch
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

FORMAT_VERSION = 1
BASE_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")

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

    - `format_version`: 1,
    - `base_model_type`: "llama", "mistral", "qwen2" or "qwen3",
    - `latent`: "separate" (one latent for keys, one for values) or "joint" (one for both),
    - `ranks`: one entry a layer, `[r_k, r_v]` or `[r]`; the full width means that the
      projection is dense and its output is what is cached.

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
    def key_value_width(self):
        return self.num_key_value_heads * self.head_dim

    @property
    def is_joint(self):
        return self.latentforge["latent"] == "joint"

    def layer_ranks(self, layer):
        """The ranks of one layer: (r_k, r_v), or (r,) when the latent is joint."""
        return tuple(self.latentforge["ranks"][layer])

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
        "format_version": FORMAT_VERSION,
        "base_model_type": "llama",
        "latent": "separate",
        "ranks": [[width, width] for _ in range(base.num_hidden_layers)],
    }


def _check(config):
    settings = config.latentforge
    if settings.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"latentforge.format_version is {settings.get('format_version')!r}, "
            f"this model code reads {FORMAT_VERSION}"
        )
    if settings.get("latent") not in ("separate", "joint"):
        raise ValueError(
            f"latentforge.latent is {settings.get('latent')!r}, expected 'separate' or 'joint'"
        )
    ranks = settings.get("ranks") or []
    if len(ranks) != config.num_hidden_layers:
        raise ValueError(
            f"latentforge.ranks has {len(ranks)} entries, expected {config.num_hidden_layers}"
        )
    joint = settings["latent"] == "joint"
    count, limit = (1, 2 * config.key_value_width) if joint else (2, config.key_value_width)
    for layer, entry in enumerate(ranks):
        if len(entry) != count or not all(1 <= rank <= limit for rank in entry):
            raise ValueError(
                f"latentforge.ranks[{layer}] is {entry}, expected {count} from 1 to {limit}"
            )
