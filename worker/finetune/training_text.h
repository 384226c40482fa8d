// Which tokens healing trains on, in which order, and on which it measures itself.
#pragma once

#include <cstdint>
#include <iterator>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/calibrate/sampling.h"

namespace latentforge::finetune {

struct TrainingOptions {
  int64_t tokens = 0;  // to train on; rounded up to whole sequences
  int64_t length = 0;  // tokens in a sequence
  int64_t batch = 1;   // sequences in a step
  // At most this many sequences are held back, and at most an eighth of all.
  int64_t validation_sequences = 8;
  uint64_t seed = 0;
};

// Whole sequences of one length, one after the other.
struct TokenBatch {
  std::vector<int32_t> ids;
  int64_t length = 0;

  int64_t sequences() const { return std::ssize(ids) / length; }
};

struct TrainingText {
  int64_t length = 0;
  int64_t batch = 1;
  std::vector<int32_t> pieces;  // whole sequences of ids, one after the other
  std::vector<int64_t> order;   // which piece each sequence of the training is
  TokenBatch validation;        // held-back sequences

  int64_t sequences() const { return std::ssize(order); }
  int64_t steps() const { return (sequences() + batch - 1) / batch; }
  // The tokens of the first `steps` steps.
  int64_t Tokens(int64_t steps) const;
  // What step i, from 0, trains on.
  TokenBatch Step(int64_t i) const;
};

// Cuts each corpus into sequences from a random offset and shuffles them; the first ones of each
// corpus, by weight, are held back. Training takes from the corpora by weight, and a corpus that
// is used up begins again in a new order. Depends on the tokens and the options alone.
// InvalidArgument names a corpus with fewer than two sequences (one to train on, one to measure
// on), what it has and what it needs.
absl::StatusOr<TrainingText> PrepareTraining(const std::vector<calibrate::TokenStream>& corpora,
                                             const TrainingOptions& options);

}  // namespace latentforge::finetune
