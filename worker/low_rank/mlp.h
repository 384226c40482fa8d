// An MLP block and its low-rank stand-in, and the calibration tokens they are fitted to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

// h of an MLP, f wide, from its input x, d wide; y = down h.
enum class Activation {
  kRelu,    // h = relu(up x); OPT's fc1 and fc2
  kSwiGlu,  // h = silu(gate x) * up x; LLaMA, Qwen
};

// Of the original model.
struct Mlp {
  Activation activation = Activation::kRelu;
  Linear up;    // [f, d]
  Linear gate;  // [f, d]; kSwiGlu only
  Linear down;  // [d, f]

  int64_t width() const { return down.weight.size(0); }        // d
  int64_t inner_width() const { return down.weight.size(1); }  // f
};

struct LowRankMlp {
  Activation activation = Activation::kRelu;
  LowRank up;
  LowRank gate;  // kSwiGlu only
  LowRank down;
};

struct MlpRanks {
  int64_t up = 0;
  int64_t gate = 0;  // kSwiGlu only
  int64_t down = 0;
};

// Inputs of the MLP at the same tokens, one a row: of the original model, which says what the
// block should compute, and behind the compressed layers before it, which is what it will see.
struct MlpRows {
  at::Tensor original;    // [n, d]
  at::Tensor compressed;  // [n, d]; undefined where no layer before it is compressed: the same
};

// The calibration tokens of one MLP in chunks that may be read again, in any order. `read` answers
// the same for the same chunk, at most `chunks` - 1, from a file or from memory. All arithmetic is
// in fp64, whatever the floating type of the rows, which lie on the device of the weights. A chunk
// of n tokens costs a few matrices [n, f] in memory while it is worked on, so that 1,024 to 4,096
// tokens a chunk are right.
struct MlpTokens {
  int64_t chunks = 0;
  std::function<absl::StatusOr<MlpRows>(int64_t chunk)> read;
};

// Values of the maps into the inner width at n tokens.
struct InnerRows {
  at::Tensor up;    // [n, f]
  at::Tensor gate;  // [n, f]; kSwiGlu only
};

// Values [n, out] of a map at `rows` [n, in].
at::Tensor RowsOf(const Linear& map, const at::Tensor& rows);
at::Tensor RowsOf(const LowRank& map, const at::Tensor& rows);

InnerRows InnerRowsOf(const Mlp& mlp, const at::Tensor& rows);
InnerRows InnerRowsOf(const LowRankMlp& mlp, const at::Tensor& rows);

// h [n, f].
at::Tensor Activate(Activation activation, const InnerRows& inner);

// silu'(s) = p (1 + s (1 - p)) with p = sigmoid(s), element by element.
at::Tensor SiluSlope(const at::Tensor& s);

// y [n, d].
at::Tensor OutputRowsOf(const Mlp& mlp, const at::Tensor& rows);
at::Tensor OutputRowsOf(const LowRankMlp& mlp, const at::Tensor& rows);

// InvalidArgument, naming the map, when one is absent, not fp64 or of a shape that does not fit
// the others; Internal when one is not finite.
absl::Status CheckMlp(const Mlp& mlp);

// InvalidArgument when a rank is not from 1 to the smaller side of its map.
absl::Status CheckRanks(const Mlp& mlp, const MlpRanks& ranks);

// Calls `visit` with every chunk in order, in fp64 and with `compressed` defined; stops at an
// error. InvalidArgument when there is no token, no `read`, or rows are not [n, d] of a floating
// type; Internal when one is not finite; otherwise the errors of `tokens.read` and `visit`.
absl::Status VisitChunks(
    const MlpTokens& tokens, int64_t d,
    const std::function<absl::Status(int64_t chunk, const MlpRows& rows)>& visit);

}  // namespace latentforge::low_rank
