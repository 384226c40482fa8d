"""Attention over a cache of latents.

Part of latentforge; every converted checkpoint carries a copy.

For each token and layer the cache holds c = A x: r_k values for keys and r_v for
values, or r values of one joint latent. Keys and values are expanded from the cache
at every step, K = RoPE(norm(B_k c + b_k)) and V = B_v c + b_v: the rotation depends
on the position, so B_k cannot be folded into the query. OPT has neither RoPE nor norm there.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .parts_latentforge import LatentforgeRMSNorm, make_linear


def rotate(x, cos, sin):
    """x [B, H, T, head_dim] turned by the angles of cos and sin [B, 1, T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Step:
    """What all layers of one forward pass share: positions, angles and masks.

    `past` tokens lie in the cache; the T new ones have `position_ids` [B, T]. Slot s
    of the cache is the token s - past places before the first new one. `frequencies` are
    those of rotated positions, None for learned ones.
    """

    def __init__(self, frequencies, position_ids, attention_mask, past, states):
        self.frequencies = frequencies
        self.position_ids = position_ids
        self.length = states.shape[1]
        self.past = past
        self.device, self.dtype = states.device, states.dtype
        self.mask = attention_mask
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            self.mask = None if bool(attention_mask.all()) else attention_mask.bool()
        self.angles, self.masks = {}, {}

    def slots(self, keys):
        """Slots of the `keys` tokens that a layer's cache returned. A layer with a
        sliding window may have dropped its oldest; a static cache has spare ones."""
        first = max(self.past + self.length - keys, 0)
        return torch.arange(first, first + keys, device=self.device)

    def query_angles(self):
        return self._angles("query", self.position_ids)

    def key_angles(self, keys):
        if self.past == 0 and keys == self.length:
            return self.query_angles()
        positions = self.position_ids[:, :1] + (self.slots(keys) - self.past)
        # The new tokens keep the positions they were given.
        new = self.past + self.length - int(self.slots(keys)[0])
        positions = positions.clone()
        positions[:, new - self.length : new] = self.position_ids
        return self._angles(keys, positions)

    def _angles(self, name, positions):
        if name not in self.angles:
            # fp32 whatever the model's format: far positions need it.
            with torch.autocast(device_type=self.device.type, enabled=False):
                angles = positions[:, None, :, None].float() * self.frequencies
            angles = torch.cat((angles, angles), dim=-1)
            self.angles[name] = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        return self.angles[name]

    def attention_mask(self, keys, window, layer_type):
        """True where a query may look, [B or 1, 1, T, keys]; None: causal, nothing else."""
        if isinstance(self.mask, dict):
            return self.mask[layer_type]
        if self.mask is not None and self.mask.ndim == 4:
            return self.mask
        if (keys, window) not in self.masks:
            self.masks[keys, window] = self._build_mask(keys, window)
        return self.masks[keys, window]

    def _build_mask(self, keys, window):
        total = self.past + self.length
        clipped = window is not None and total > window
        if self.mask is None and not clipped and keys == total:
            if self.past == 0 or self.length == 1:
                return None
        slot = self.slots(keys)
        query = torch.arange(self.past, total, device=self.device)[:, None]
        allowed = slot <= query
        if window is not None:
            allowed = allowed & (slot > query - window)
        allowed = allowed[None, None]
        if self.mask is not None:
            padded = F.pad(self.mask, (0, max(int(slot[-1]) + 1 - self.mask.shape[1], 0)))
            allowed = allowed & padded[:, None, None, slot[0] : slot[-1] + 1]
        # A padding query may look nowhere: let it look anywhere instead of dividing by 0.
        return allowed | ~allowed.any(-1, keepdim=True)


class LatentforgeAttention(nn.Module):
    """Attention whose keys and values are maps of their own, each dense or of low rank."""

    def __init__(self, config, layer):
        super().__init__()
        self.layer = layer
        self.implementation = lambda: config._attn_implementation
        self.window = config.window_of(layer)
        self.layer_type = "full_attention" if self.window is None else "sliding_attention"
        self.head_dim = config.head_dim
        self.width = config.key_value_width
        self.groups = config.num_attention_heads // config.key_value_heads
        self.q_proj = make_linear(config, layer, "q")
        self.make_key_value(config, layer)
        self.o_proj = make_linear(config, layer, "o")
        self.q_norm = self.k_norm = None
        if config.latentforge["base_model_type"] == "qwen3":
            self.q_norm = LatentforgeRMSNorm(self.head_dim, config.rms_norm_eps)
            self.k_norm = LatentforgeRMSNorm(self.head_dim, config.rms_norm_eps)

    def make_key_value(self, config, layer):
        self.k_proj = make_linear(config, layer, "k")
        self.v_proj = make_linear(config, layer, "v")

    def latents(self, x):
        """What the cache holds for x [B, T, D]: two tensors [B, 1, T, r]."""
        return self.k_proj.latent(x)[:, None], self.v_proj.latent(x)[:, None]

    def expand(self, keys, values):
        """Keys before rotation and values, [B, heads, T, head_dim], from latents."""
        keys, values = self.expand_latents(keys[:, 0], values[:, 0])
        keys, values = self._heads(keys), self._heads(values)
        return (keys if self.k_norm is None else self.k_norm(keys)), values

    def expand_latents(self, keys, values):
        return self.k_proj.expand(keys), self.v_proj.expand(values)

    def _heads(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x, step, cache):
        queries = self._heads(self.q_proj(x))
        if self.q_norm is not None:
            queries = self.q_norm(queries)
        keys, values = self.latents(x)
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer)
        length = keys.shape[-2]
        keys, values = self.expand(keys, values)
        if step.frequencies is not None:
            queries = rotate(queries, *step.query_angles())
            keys = rotate(keys, *step.key_angles(length))
        mask = step.attention_mask(length, self.window, self.layer_type)
        keys = keys.repeat_interleave(self.groups, dim=1)
        values = values.repeat_interleave(self.groups, dim=1)
        if self.implementation() == "eager":
            mixed, weights = self._eager(queries, keys, values, mask)
        else:
            causal = mask is None and queries.shape[-2] > 1
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=causal
            )
            weights = None
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), weights

    def _eager(self, queries, keys, values, mask):
        scores = queries @ keys.transpose(-1, -2) * self.head_dim**-0.5
        if mask is None:
            # Causal over all keys: a single query sees all of them.
            ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
            mask = ones.tril(scores.shape[-1] - scores.shape[-2])
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask
        weights = scores.softmax(-1, dtype=torch.float32).to(queries.dtype)
        return weights @ values, weights


class LatentforgeLatentAttention(LatentforgeAttention):
    """Attention of format version 1: down and up projections, or a joint latent."""

    def make_key_value(self, config, layer):
        hidden, _, bias = config.linear_maps()["k"]
        ranks = config.layer_ranks(layer)
        self.joint = config.is_joint
        if self.joint:
            self.k_dense = self.v_dense = ranks[0] == 2 * self.width
            if not self.k_dense:
                self.kv_down_proj = nn.Linear(hidden, ranks[0], bias=False)
            k_inner = v_inner = ranks[0]
        else:
            k_inner, v_inner = ranks
            self.k_dense, self.v_dense = k_inner == self.width, v_inner == self.width
            if not self.k_dense:
                self.k_down_proj = nn.Linear(hidden, k_inner, bias=False)
            if not self.v_dense:
                self.v_down_proj = nn.Linear(hidden, v_inner, bias=False)
        if self.k_dense:
            self.k_proj = make_linear(config, layer, "k")
        else:
            self.k_up_proj = nn.Linear(k_inner, self.width, bias=bias)
        if self.v_dense:
            self.v_proj = make_linear(config, layer, "v")
        else:
            self.v_up_proj = nn.Linear(v_inner, self.width, bias=bias)

    def latents(self, x):
        """A joint latent is the first; the second has no width."""
        if self.joint:
            if self.k_dense:
                latent = torch.cat((self.k_proj.latent(x), self.v_proj.latent(x)), dim=-1)
            else:
                latent = self.kv_down_proj(x)
            return latent[:, None], latent.new_empty(x.shape[0], 1, x.shape[1], 0)
        keys = self.k_proj.latent(x) if self.k_dense else self.k_down_proj(x)
        values = self.v_proj.latent(x) if self.v_dense else self.v_down_proj(x)
        return keys[:, None], values[:, None]

    def expand_latents(self, keys, values):
        if self.joint:
            latent = keys
            if self.k_dense:
                keys, values = latent.split(self.width, dim=-1)
            else:
                keys = values = latent
        keys = self.k_proj.expand(keys) if self.k_dense else self.k_up_proj(keys)
        values = self.v_proj.expand(values) if self.v_dense else self.v_up_proj(values)
        return keys, values
