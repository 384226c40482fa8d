// Token ids of a text, in bounded memory.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/model/tokenizer/tokenizer.h"

namespace latentforge::convert {

// Texts up to this size are tokenised as one piece.
inline constexpr size_t kTokenizedAtOnce = size_t{4} << 20;

// The ids of `text` with the special tokens that the tokenizer's own post-processor
// adds to a whole text (BOS once, at the very start). A longer text is cut after
// the last line end of each `piece_bytes`, where tokens may differ from those of
// the whole: tokenizers take about a hundred bytes a token while they work.
absl::StatusOr<std::vector<int32_t>> TokenizeText(const model::Tokenizer& tokenizer,
                                                  absl::string_view text,
                                                  size_t piece_bytes = kTokenizedAtOnce);

}  // namespace latentforge::convert
