"""A Llama-family or OPT decoder with low-rank linear maps, or with latents of keys and values alone.

Part of latentforge; every converted checkpoint carries a copy.

Modules have Llama's names for every family: OPT's fc1 is mlp.up_proj, its fc2 mlp.down_proj.
"""

import torch
import transformers
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .attention_latentforge import LatentforgeAttention, LatentforgeLatentAttention, Step
from .configuration_latentforge import LatentforgeConfig, rotary_frequencies
from .parts_latentforge import LatentforgeLearnedPositions, make_linear, make_norm

_TRANSFORMERS_MAJOR = int(transformers.__version__.split(".")[0])


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
