// Which tokens healing trains on, in which order, and on which it measures itself.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/calibrate/sampling.h"

namespace latentforge::finetune {

struct TrainingOptions {
  int64_t tokens = 0;  // to train on; rounded up to whole sequences
  int64_t length = 0;  // tokens in a sequence
  // At most this many sequences are held back, and at most an eighth of all.
  int64_t validation_sequences = 8;
  uint64_t seed = 0;
};

struct TrainingText {
  int64_t length = 0;
  std::vector<int32_t> pieces;      // whole sequences of ids, one after the other
  std::vector<int64_t> order;       // which piece each sequence of the training is
  std::vector<int32_t> validation;  // ids of held-back sequences

  absl::Span<const int32_t> Sequence(int64_t i) const {
    return absl::MakeConstSpan(pieces).subspan(
        static_cast<size_t>(order[static_cast<size_t>(i)] * length), static_cast<size_t>(length));
  }
  int64_t sequences() const { return static_cast<int64_t>(order.size()); }
  int64_t validation_count() const { return static_cast<int64_t>(validation.size()) / length; }
};

// Cuts each corpus into sequences from a random offset and shuffles them; the first ones of each
// corpus, by weight, are held back. Training takes from the corpora by weight, and a corpus that
// is used up begins again in a new order. Depends on the tokens and the options alone.
// InvalidArgument names a corpus with fewer than two sequences (one to train on, one to measure
// on), what it has and what it needs.
absl::StatusOr<TrainingText> PrepareTraining(const std::vector<calibrate::TokenStream>& corpora,
                                             const TrainingOptions& options);

}  // namespace latentforge::finetune
