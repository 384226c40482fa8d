#include "worker/calibrate/corpus.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/utf8.h"

namespace latentforge::calibrate {
namespace {

// The whole file, or its first max_bytes.
absl::StatusOr<std::string> ReadPrefix(const std::filesystem::path& path, int64_t max_bytes,
                                       bool& truncated) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  truncated = !error && size > uint64_t(max_bytes);
  if (!truncated) return ReadFile(path, max_bytes);
  std::ifstream file(path, std::ios::binary);
  std::string text(size_t(max_bytes), '\0');
  if (!file.read(text.data(), max_bytes)) {
    return absl::PermissionDeniedError(absl::StrCat("cannot read ", path.string()));
  }
  const size_t line_end = text.rfind('\n');
  if (line_end == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(),
                                                   " has no line end within its first ", max_bytes,
                                                   " bytes, and more cannot be used"));
  }
  text.resize(line_end + 1);
  return text;
}

absl::Status CheckUtf8(absl::string_view text, const std::filesystem::path& path) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  const auto line = 1 + std::count(text.begin(), text.begin() + int64_t(valid), '\n');
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: byte %d (line %d) is 0x%02x, which is not UTF-8", path.string(), valid,
                      line, static_cast<uint8_t>(text[valid])));
}

absl::StatusOr<std::string> JoinDocuments(absl::string_view lines,
                                          const std::filesystem::path& path,
                                          absl::string_view field) {
  std::string joined;
  int64_t number = 0;
  while (!lines.empty()) {
    ++number;
    const size_t end = std::min(lines.find('\n'), lines.size());
    const absl::string_view line = absl::StripAsciiWhitespace(lines.substr(0, end));
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line.empty()) continue;
    const std::string where = absl::StrCat(path.string(), ": line ", number);
    absl::StatusOr<Json> value = ParseJson(line);
    if (!value.ok()) return Annotate(value.status(), where);
    LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(*value, where));
    LF_ASSIGN_OR_RETURN(const std::string document, object.String(field));
    if (document.empty()) continue;
    if (!joined.empty()) joined += "\n\n";
    joined += document;
  }
  return joined;
}

}  // namespace

absl::StatusOr<CorpusText> ReadCorpus(const std::filesystem::path& path,
                                      absl::string_view text_field, int64_t max_bytes) {
  if (text_field.empty() && absl::EndsWith(path.string(), ".jsonl")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), " holds JSON lines, but no text field is named"));
  }
  CorpusText corpus;
  LF_ASSIGN_OR_RETURN(std::string bytes, ReadPrefix(path, max_bytes, corpus.truncated));
  corpus.sha256 = Sha256Hex(bytes);
  LF_RETURN_IF_ERROR(CheckUtf8(bytes, path));
  if (text_field.empty()) {
    corpus.text = std::move(bytes);
  } else {
    LF_ASSIGN_OR_RETURN(corpus.text, JoinDocuments(bytes, path, text_field));
  }
  if (absl::StripAsciiWhitespace(corpus.text).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " holds no text"));
  }
  return corpus;
}

}  // namespace latentforge::calibrate
