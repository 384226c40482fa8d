"""A Llama-family or OPT decoder with low-rank linear maps, or with latents of keys and values alone.

Part of latentforge; every converted checkpoint carries a copy.

For each token and layer the cache holds c = A x: r_k values for keys and r_v for
values, or r values of one joint latent. Keys and values are expanded from the cache
at every step, K = RoPE(norm(B_k c + b_k)) and V = B_v c + b_v: the rotation depends
on the position, so B_k cannot be folded into the query. OPT has neither RoPE nor norm there.

Modules have Llama's names for every family: OPT's fc1 is mlp.up_proj, its fc2 mlp.down_proj.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_latentforge import (
    LAYER_NORM_EPSILON,
    LatentforgeConfig,
    rotary_frequencies,
)

_TRANSFORMERS_MAJOR = int(transformers.__version__.split(".")[0])


def rotate(x, cos, sin):
    """x [B, H, T, head_dim] turned by the angles of cos and sin [B, 1, T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class LatentforgeRMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def make_norm(config):
    """A norm of the hidden states."""
    if config.layer_norms:
        return nn.LayerNorm(config.hidden_size, LAYER_NORM_EPSILON)
    return LatentforgeRMSNorm(config.hidden_size, config.rms_norm_eps)


class LatentforgeLearnedPositions(nn.Embedding):
    """OPT's: position p has row p + 2, and padding, at position -1, row 1."""

    OFFSET = 2

    def __init__(self, positions, size):
        super().__init__(positions + self.OFFSET, size)

    def forward(self, positions):
        return super().forward(positions + self.OFFSET)


class LatentforgeLowRankLinear(nn.Module):
    """y = up(z) + bias with z = down(x): r numbers for each input.

    With a block identity r columns of the first factor are the identity. They are not
    stored and not multiplied by: z = x[order[:r]] + down(x[order[r:]]).
    """

    def __init__(self, inputs, outputs, rank, bias, block_identity):
        super().__init__()
        self.rank = rank
        self.down = nn.Linear(inputs - rank if block_identity else inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias)
        # A buffer: it is saved and moved with the model, but neither trained nor cast.
        order = torch.arange(inputs, dtype=torch.int32) if block_identity else None
        self.register_buffer("order", order)

    def latent(self, x):
        if self.order is None:
            return self.down(x)
        kept, others = x.index_select(-1, self.order).split(
            (self.rank, x.shape[-1] - self.rank), dim=-1
        )
        return kept + self.down(others)

    def expand(self, z):
        return self.up(z)

    def forward(self, x):
        return self.expand(self.latent(x))


class LatentforgeDenseLinear(nn.Linear):
    """A linear map that is cached as it is, before its bias."""

    def latent(self, x):
        return F.linear(x, self.weight)

    def expand(self, z):
        return z if self.bias is None else z + self.bias


def make_linear(config, layer, name):
    """The map `name` ("q", …, "down") of a layer, of low rank where the artifact has it so."""
    inputs, outputs, bias = config.linear_maps()[name]
    rank = config.layer_ranks(layer)[name] if config.is_low_rank else 0
    if rank == 0:
        return LatentforgeDenseLinear(inputs, outputs, bias=bias)
    settings = config.latentforge
    return LatentforgeLowRankLinear(
        inputs, outputs, rank, bias or settings["bias"], settings["block_identity"]
    )


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


class LatentforgeMLP(nn.Module):
    """down(activation(gate x) * up x), or down(activation(up x)) where there is no gate."""

    def __init__(self, config, layer):
        super().__init__()
        self.gate_proj = make_linear(config, layer, "gate") if config.gated else None
        self.up_proj = make_linear(config, layer, "up")
        self.down_proj = make_linear(config, layer, "down")
        self.activation = ACT2FN[config.setting("hidden_act")]

    def forward(self, x):
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(x)))
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class LatentforgeDecoderLayer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        attention = LatentforgeAttention if config.is_low_rank else LatentforgeLatentAttention
        self.self_attn = attention(config, layer)
        self.mlp = LatentforgeMLP(config, layer)
        self.input_layernorm = make_norm(config)
        self.post_attention_layernorm = make_norm(config)
        self.norms_before = config.norms_before

    def forward(self, x, step, cache):
        if not self.norms_before:
            attended, weights = self.self_attn(x, step, cache)
            x = self.input_layernorm(x + attended)
            return self.post_attention_layernorm(x + self.mlp(x)), weights
        attended, weights = self.self_attn(self.input_layernorm(x), step, cache)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), weights


class LatentforgePreTrainedModel(PreTrainedModel):
    config_class = LatentforgeConfig
    base_model_prefix = "model"
    _no_split_modules = ["LatentforgeDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True


class LatentforgeModel(LatentforgePreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        width = config.embedding_size
        self.embed_tokens = nn.Embedding(
            config.vocab_size, width, getattr(config, "pad_token_id", None)
        )
        self.embed_positions = self.project_in = self.project_out = None
        if config.learned_positions:
            self.embed_positions = LatentforgeLearnedPositions(
                config.max_position_embeddings, config.hidden_size
            )
        if width != config.hidden_size:
            self.project_in = nn.Linear(width, config.hidden_size, bias=False)
            self.project_out = nn.Linear(config.hidden_size, width, bias=False)
        self.layers = nn.ModuleList(
            LatentforgeDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = make_norm(config) if config.norms_before else None
        # Not a buffer: loading would leave it on the meta device.
        self._frequencies = {}
        self.post_init()

    def frequencies(self, device):
        if self.embed_positions is not None:
            return None
        if device not in self._frequencies:
            with torch.device("cpu"):
                self._frequencies[device] = rotary_frequencies(self.config).to(device)
        return self._frequencies[device]

    def positions(self, x, past, mask):
        """Of the new tokens where the caller names none. OPT counts those that are no padding."""
        if self.embed_positions is None or getattr(mask, "ndim", 0) != 2:
            return torch.arange(past, past + x.shape[1], device=x.device)[None]
        return (mask.cumsum(1) * mask - 1).long()[:, past:]

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        if position_ids is None:
            position_ids = self.positions(x, past, attention_mask)
        if self.project_in is not None:
            x = self.project_in(x)
        if self.embed_positions is not None:
            x = x + self.embed_positions(position_ids)
        step = Step(self.frequencies(x.device), position_ids, attention_mask, past, x)
        states, attentions = [x], []
        for layer in self.layers:
            x, weights = layer(x, step, past_key_values)
            if output_hidden_states:
                states.append(x)
            if output_attentions:
                attentions.append(weights)
        if self.norm is not None:
            x = self.norm(x)
        if self.project_out is not None:
            x = self.project_out(x)
        states[-1] = x
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class LatentforgeForCausalLM(LatentforgePreTrainedModel, GenerationMixin):
    _tied_weights_keys = (
        {"lm_head.weight": "model.embed_tokens.weight"}
        if _TRANSFORMERS_MAJOR >= 5
        else ["lm_head.weight"]
    )

    def __init__(self, config):
        super().__init__(config)
        self.model = LatentforgeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.embedding_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        **kwargs,
    ):
        config = self.config
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=config.vocab_size, **kwargs
            )
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return result.to_tuple() if return_dict is False else result
