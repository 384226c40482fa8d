// Token ids of a text, in bounded memory.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/model/tokenizer/tokenizer.h"

namespace latentforge::convert {

// Texts up to this size are tokenised as one piece, which takes about 120 times as
// many bytes while it lasts: at this size less than an evaluation of a small model.
inline constexpr size_t kTokenizedAtOnce = size_t{512} << 10;

// How much to take from the front of `text`, at most `piece_bytes` (at least 1 of
// both): all of it, or up to the last line end before a word, else up to the last
// line end, else whole characters.
size_t PieceSize(absl::string_view text, size_t piece_bytes);

// The ids of `text` with the special tokens that the tokenizer's own post-processor
// adds to a whole text (BOS once, at the very start). A longer text is cut as
// PieceSize says; tokens at a cut may differ from those of the whole where the
// tokenizer looks across words. Also ResourceExhausted when no thread can start.
absl::StatusOr<std::vector<int32_t>> TokenizeText(const model::Tokenizer& tokenizer,
                                                  absl::string_view text,
                                                  size_t piece_bytes = kTokenizedAtOnce);

}  // namespace latentforge::convert
