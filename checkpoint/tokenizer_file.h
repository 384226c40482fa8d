// Whether a checkpoint's tokenizer.json can be one, without loading a tokenizer.
#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::checkpoint {

inline constexpr char kTokenizerFile[] = "tokenizer.json";

// Looks at the structure alone: JSON, an object whose "model" is an object with a
// "vocab". ("type" may be absent: the first tokenizers were saved without it.) In
// constant memory beside the text. InvalidArgument says what is wrong.
absl::Status CheckTokenizerJson(absl::string_view json_text);

// DIR/tokenizer.json. NotFound, PermissionDenied, OutOfRange when it has more than
// 64 MiB (the largest known has 33 MB), else as CheckTokenizerJson.
absl::Status CheckTokenizerFile(const std::filesystem::path& dir);

}  // namespace latentforge::checkpoint
