// Chooses calibration sequences and evaluation windows from tokenised corpora.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace latentforge::calibrate {

// One tokenised corpus.
struct TokenStream {
  std::string name;  // for messages: its path
  double weight = 1;
  std::vector<int32_t> tokens;
};

// Sequences of `length` token ids each, one after the other.
struct TokenSequences {
  int64_t count = 0;
  int64_t length = 0;
  std::vector<int32_t> ids;  // count * length

  absl::Span<const int32_t> Sequence(int64_t i) const {
    return absl::MakeConstSpan(ids).subspan(size_t(i * length), size_t(length));
  }
};

struct SamplingOptions {
  int64_t sequences = 0;
  int64_t length = 0;
  uint64_t seed = 0;
};

// How many of `sequences` each weight gets: proportional, the remainder by largest
// fraction, then by position. InvalidArgument when a weight is not positive.
absl::StatusOr<std::vector<int64_t>> DivideSequences(int64_t sequences,
                                                     const std::vector<double>& weights);

// Draws sequences that do not overlap: each corpus is cut into pieces of `length`
// tokens from a random offset, and its share is drawn from the pieces without
// repetition. The result holds the corpora in order, each corpus's pieces by
// position, and depends on the seed and the tokens alone. InvalidArgument names
// the corpus, the tokens it has and needs, and the setting to change.
absl::StatusOr<TokenSequences> SampleSequences(const std::vector<TokenStream>& corpora,
                                               const SamplingOptions& options);

// Takes the last `tokens` tokens off the stream and returns them, for an
// evaluation on text that calibration never sees. InvalidArgument when fewer than
// tokens + still_needed are there; the message names both numbers.
absl::StatusOr<std::vector<int32_t>> HoldBack(TokenStream& stream, int64_t tokens,
                                              int64_t still_needed);

}  // namespace latentforge::calibrate
