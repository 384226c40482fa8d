// Reads calibration and evaluation text from files that we do not trust.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::calibrate {

// Larger files are used up to their last line end within this many bytes.
inline constexpr int64_t kMaxCorpusBytes = int64_t{32} << 20;

struct CorpusText {
  std::string text;        // valid UTF-8, not empty
  std::string sha256;      // of the bytes that were read from the file
  bool truncated = false;  // the file is larger than max_bytes
};

// A plain text file (empty text_field), or the documents in field `text_field` of
// a file of JSON lines, joined by blank lines; empty lines are skipped.
// NotFound, PermissionDenied: the file. InvalidArgument names the file and the
// byte or the line: no text, not UTF-8, not JSON, a line without the field, a
// .jsonl file without text_field.
absl::StatusOr<CorpusText> ReadCorpus(const std::filesystem::path& path,
                                      absl::string_view text_field,
                                      int64_t max_bytes = kMaxCorpusBytes);

}  // namespace latentforge::calibrate
