#include "worker/convert/text_tokens.h"

#include <malloc.h>

#include "base/status_macros.h"

namespace latentforge::convert {
namespace {

// The bytes to take from the front of `text`: whole lines, or whole characters
// where a line is longer than a piece.
size_t PieceSize(absl::string_view text, size_t piece_bytes) {
  if (text.size() <= piece_bytes) return text.size();
  const size_t line_end = text.substr(0, piece_bytes).rfind('\n');
  if (line_end != absl::string_view::npos) return line_end + 1;
  size_t size = piece_bytes;
  while (size > 1 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
  return size;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> TokenizeText(const model::Tokenizer& tokenizer,
                                                  absl::string_view text, size_t piece_bytes) {
  std::vector<int32_t> ids;
  bool first = true;
  while (first || !text.empty()) {
    const size_t size = PieceSize(text, piece_bytes);
    LF_ASSIGN_OR_RETURN(const std::vector<int32_t> piece,
                        tokenizer.Encode(text.substr(0, size), /*add_special_tokens=*/first));
    ids.insert(ids.end(), piece.begin(), piece.end());
    text.remove_prefix(size);
    first = false;
  }
  // What the tokenizer used is free, but the C library would keep it resident.
  malloc_trim(0);
  return ids;
}

}  // namespace latentforge::convert
