// Which tokens healing trains on, in which order, and on which it measures itself.
#pragma once

#include <cstdint>
#include <iterator>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/calibrate/sampling.h"

namespace latentforge::finetune {

struct TrainingOptions {
  int64_t tokens = 0;  // to train on; rounded up to whole pieces
  int64_t length = 0;  // tokens in a piece
  int64_t batch = 1;   // pieces in a step; divisible by `joined`
  // How many pieces that follow each other in the text are one sequence in the second half of the
  // steps. Short sequences teach more per token at first, but nothing about positions beyond
  // their end: docs/quality.md.
  int64_t joined = 1;
  // At most this many pieces are held back, and at most an eighth of all; sequences of `joined`.
  int64_t validation = 8;
  uint64_t seed = 0;
};

// Whole sequences of one length, one after the other.
struct TokenBatch {
  std::vector<int32_t> ids;
  int64_t length = 0;

  int64_t sequences() const { return std::ssize(ids) / length; }
};

class TrainingText {
 public:
  int64_t pieces() const { return std::ssize(order_); }
  int64_t steps() const { return (pieces() + options_.batch - 1) / options_.batch; }
  // The tokens of the first `steps` steps.
  int64_t Tokens(int64_t steps) const;
  // What step i, from 0, trains on.
  TokenBatch Step(int64_t i) const;
  const TokenBatch& validation() const { return validation_; }
  const TrainingOptions& options() const { return options_; }

 private:
  friend class TrainingTextBuilder;

  TrainingOptions options_;
  std::vector<int32_t> ids_;    // pieces, one after the other
  std::vector<int64_t> order_;  // which piece of ids_ each one of the training is
  TokenBatch validation_;
};

// Cuts each corpus into sequences from a random offset and shuffles them; some of each corpus, by
// weight, are held back. Training takes from the corpora by weight, and a corpus that is used up
// begins again in a new order. Depends on the tokens and the options alone.
// InvalidArgument names a corpus with fewer than two sequences of `joined` pieces (one to train
// on, one to measure on), what it has and what it needs.
absl::StatusOr<TrainingText> PrepareTraining(const std::vector<calibrate::TokenStream>& corpora,
                                             const TrainingOptions& options);

}  // namespace latentforge::finetune
