// Texts of a job: latentforge.v1.CorpusSpec as plain values.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace latentforge::convert {

struct CorpusSpec {
  std::filesystem::path path;
  double weight = 1;
  std::string text_field;  // empty: plain text
};

// The member `key` as a path, from a file: URI or an absolute path. InvalidArgument
// names the key, the value and what was expected; so do those below.
absl::StatusOr<std::filesystem::path> ParsePath(const JsonObject& object, absl::string_view key);

// The member message `key`; nullopt when it is absent or empty.
absl::StatusOr<std::optional<CorpusSpec>> ParseCorpus(const JsonObject& parent,
                                                      absl::string_view key);

// The list `key`; empty when it is absent.
absl::StatusOr<std::vector<CorpusSpec>> ParseCorpora(const JsonObject& parent,
                                                     absl::string_view key);

Json CorpusToJson(const CorpusSpec& corpus);
Json CorporaToJson(const std::vector<CorpusSpec>& corpora);

}  // namespace latentforge::convert
