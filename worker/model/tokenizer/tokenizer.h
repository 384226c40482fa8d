// Text to token ids and back, by a model's own tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct LfTokenizer;

namespace latentforge::model {

// A loaded tokenizer.json; gives the ids that Hugging Face's `tokenizers` gives.
// Truncation and padding named in the file are ignored. Movable; const methods are
// safe for concurrent use.
class Tokenizer {
 public:
  // `path` is the tokenizer.json itself. InvalidArgument when it is no valid one;
  // file errors as in ReadFile.
  static absl::StatusOr<Tokenizer> Load(const std::filesystem::path& path);

  // The ids of a whole text, in time linear in its length and with about 120 bytes of
  // memory per byte of text; `add_special_tokens` adds what the file's own
  // post-processor adds, such as BOS. Names of special tokens inside the text become
  // those tokens. InvalidArgument names the first byte that is not UTF-8.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const;

  // InvalidArgument names the first id that the vocabulary lacks. Ids that end in the
  // middle of a character give U+FFFD.
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const;

  // One more than the largest token id, added tokens included: an embedding with
  // this many rows has one for every id.
  int32_t vocab_size() const;

 private:
  struct Free {
    void operator()(LfTokenizer* tokenizer) const;
  };

  explicit Tokenizer(LfTokenizer* owned) : handle_(owned) {}

  std::unique_ptr<LfTokenizer, Free> handle_;
};

}  // namespace latentforge::model
