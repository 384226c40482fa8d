#include "worker/convert/text_tokens.h"

#include <malloc.h>

#include <system_error>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::convert {
namespace {

// Whether `text` can be cut at `at`, behind a line end: what goes on there is a word,
// alone or behind one space, which tokenizers split off from the line end before it.
// Longer runs of white space are one token to some of them.
bool IsWordStart(absl::string_view text, size_t at) {
  if (at + 1 >= text.size()) return false;
  if (text[at] == ' ') return !absl::ascii_isspace(static_cast<uint8_t>(text[at + 1]));
  return !absl::ascii_isspace(static_cast<uint8_t>(text[at])) &&
         (at < 2 || !absl::ascii_isspace(static_cast<uint8_t>(text[at - 2])));
}

absl::StatusOr<std::vector<int32_t>> TokenizePieces(const model::Tokenizer& tokenizer,
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
  return ids;
}

}  // namespace

size_t PieceSize(absl::string_view text, size_t piece_bytes) {
  if (text.size() <= piece_bytes) return text.size();
  const absl::string_view piece = text.substr(0, piece_bytes);
  const size_t last = piece.rfind('\n');
  for (size_t end = last; end != absl::string_view::npos && end > 0;
       end = piece.rfind('\n', end - 1)) {
    if (IsWordStart(text, end + 1)) return end + 1;
  }
  if (last != absl::string_view::npos) return last + 1;
  size_t size = piece_bytes;
  while (size > 1 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
  return size;
}

absl::StatusOr<std::vector<int32_t>> TokenizeText(const model::Tokenizer& tokenizer,
                                                  absl::string_view text, size_t piece_bytes) {
  absl::StatusOr<std::vector<int32_t>> ids = absl::InternalError("the text was not tokenised");
  // In a thread of its own: the tokenizer library keeps caches for each thread until
  // that ends, and they would hold tens of MB through all that follows.
  try {
    std::thread([&] { ids = TokenizePieces(tokenizer, text, piece_bytes); }).join();
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread could be started to tokenise a text: ", error.what()));
  }
  // What the tokenizer used is free, but the C library would keep it resident.
  malloc_trim(0);
  return ids;
}

}  // namespace latentforge::convert
