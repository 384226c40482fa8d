"""Tiny random artifacts of the method low_rank, built from docs/artifact.md alone.

The reference is the family's Hugging Face model with every low-rank map multiplied out.
"""

from pathlib import Path

import artifact_fixtures as fixtures
import torch
from torch import nn

# Maps of a layer: key in "ranks", module in the model.
MAPS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
FAMILIES = ("llama", "llama-bias", "mistral", "qwen2", "qwen3", "opt", "opt-350m")
# (block identity, biases everywhere)
LAYOUTS = ((True, False), (True, True), (False, False), (False, True))
# Every map of low rank; two mixtures, one with dense keys, one with dense values.
RANKS = [
    dict(q=9, k=7, v=5, o=11, gate=13, up=12, down=10),
    dict(q=0, k=0, v=6, o=0, gate=0, up=14, down=29),
    dict(q=23, k=15, v=0, o=8, gate=29, up=0, down=0),
]


def factors(linear, rank, identity, generator):
    """Random (order or None, stored down, whole down, up), of about the map's size."""
    outputs, inputs = linear.weight.shape
    if identity:
        order = torch.randperm(inputs, generator=generator)
        rest = torch.randn(rank, inputs - rank, generator=generator) / inputs**0.5
        down = torch.zeros(rank, inputs)
        down[torch.arange(rank), order[:rank]] = 1
        down[:, order[rank:]] = rest
    else:
        order, rest = None, torch.randn(rank, inputs, generator=generator) / inputs**0.5
        down = rest
    size = linear.weight.detach().norm() / (inputs * outputs) ** 0.5
    up = torch.randn(outputs, rank, generator=generator) * size * (inputs / rank) ** 0.5
    return order, rest, down, up


def convert(model, ranks, identity, bias, seed=0):
    """The artifact's tensors; `model` becomes what they multiply out to."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        fixtures.artifact_name(name): value.clone() for name, value in model.state_dict().items()
    }
    modules = fixtures.artifact_modules(model)
    for layer, entry in enumerate(ranks):
        for key, module in MAPS.items():
            rank = entry[key]
            if rank == 0:
                continue
            linear = modules[f"model.layers.{layer}.{module}"]
            order, rest, down, up = factors(linear, rank, identity, generator)
            linear.weight.data = (up.double() @ down.double()).float()
            if bias:
                # Also where the family has none: nn.Linear adds what is there.
                linear.bias = nn.Parameter(torch.randn(up.shape[0], generator=generator) * 0.3)
            name = f"model.layers.{layer}.{module}"
            del state[name + ".weight"]
            state.pop(name + ".bias", None)
            state[name + ".down.weight"], state[name + ".up.weight"] = rest, up
            if order is not None:
                state[name + ".order"] = order.int()
            if linear.bias is not None:
                state[name + ".up.bias"] = linear.bias.detach().clone()
    return state


def section(ranks, identity, bias):
    return dict(
        format_version=2, method="low_rank", block_identity=identity, bias=bias, ranks=ranks
    )


def ranks_of(family, ranks):
    """An MLP without a gate has no rank for it."""
    if not family.startswith("opt"):
        return ranks
    return [dict(entry, gate=0) for entry in ranks]


def make_artifact(family, root, identity=True, bias=False, ranks=RANKS, seed=0):
    """(folder of the artifact, the Hugging Face model that it must equal, its tensors)."""
    source = Path(root) / "source"
    model = fixtures.make_source(family, source, seed)
    ranks = ranks_of(family, ranks)
    state = convert(model, ranks, identity, bias, seed)
    written = {name: value.contiguous() for name, value in state.items()}
    folder = fixtures.write_artifact(
        source, Path(root) / "artifact", written, section(ranks, identity, bias)
    )
    return folder, model, state
