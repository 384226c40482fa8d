// What a conversion makes new in one decoder layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/strings/string_view.h"

namespace latentforge::exporter {

// The stand-in of one linear map [out, in] of rank r: y = up (down x) + bias. All undefined: the
// map stays dense.
struct LowRankMap {
  // [in], integers: the channels that make up the block identity, then the others; defined just
  // where the artifact has a block identity.
  at::Tensor order;
  at::Tensor down;  // [r, in]; with an order [r, in - r], its columns that are not the identity's
  at::Tensor up;    // [out, r]
  at::Tensor bias;  // [out]; undefined: the source's, where it has one
};

struct LowRankLayer {
  LowRankMap q, k, v, o, gate, up, down;
};

// Any floating dtype and device. D is the hidden size, m the key (and value) width. What is
// undefined stays as in the source. The first five tensors belong to artifacts with latents for
// keys and values, whose biases come from the source; `low_rank` to those with low-rank maps.
struct ConvertedLayer {
  at::Tensor k_down;   // [r_k, D], separate
  at::Tensor v_down;   // [r_v, D], separate
  at::Tensor kv_down;  // [r, D], joint
  at::Tensor k_up;     // [m, r_k], joint: [m, r]
  at::Tensor v_up;     // [m, r_v], joint: [m, r]
  // The projections of queries and of attention's output; undefined: the source's.
  at::Tensor q;  // [heads * d, D]
  at::Tensor o;  // [D, heads * d]
  LowRankLayer low_rank;
};

// The new tensor called `suffix` ("self_attn.k_down_proj.weight", "mlp.up_proj.order"); null for
// what the source has. A factor that `layer` ought to have but has not is undefined.
const at::Tensor* FindConverted(const ConvertedLayer& layer, absl::string_view suffix);

// The source's suffix of a tensor that it has: only the biases move.
std::string SourceSuffix(absl::string_view suffix);

}  // namespace latentforge::exporter
