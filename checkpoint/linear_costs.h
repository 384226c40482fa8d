// What the linear maps of a decoder and its attention cost: parameters, and multiplications with
// additions (MACs), which are half the floating-point operations.
#pragma once

#include <cstdint>

#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Of all linear maps of all layers; embedding and output head are none of them. For artifacts
// with their latent or low-rank factors.
struct LinearCosts {
  int64_t weights = 0;  // without biases; a block identity is not stored and not counted
  int64_t biases = 0;

  int64_t parameters() const { return weights + biases; }
  // A token is multiplied by each weight once. The identity is a gather and an addition.
  int64_t macs_per_token() const { return weights; }
};

LinearCosts DecoderLinearCosts(const ModelConfig& config);

// MACs of attention over all layers when a text of `length` tokens goes through at once: scores
// and weighted values, each query with the keys that it may see. Keys and values are expanded once
// a token, which DecoderLinearCosts has counted.
double PrefillAttentionMacs(const ModelConfig& config, int64_t length);

// MACs of attention over all layers for one token that sees `context` tokens, itself among them:
// scores, weighted values, and the expansion of the other tokens' keys and values from their cached
// latents, which this layout repeats at every step (docs/artifact.md). With a sliding window the
// cache holds no more than the window.
double DecodeAttentionMacs(const ModelConfig& config, int64_t context);

}  // namespace latentforge::checkpoint
