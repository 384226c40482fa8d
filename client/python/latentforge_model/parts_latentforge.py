"""Linear maps, norms and positions of a decoder.

Part of latentforge; every converted checkpoint carries a copy.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_latentforge import LAYER_NORM_EPSILON


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
