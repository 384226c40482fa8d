// Strict JSON from files, flags and pipes that we do not trust.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace latentforge {

using Json = nlohmann::json;

struct JsonLimits {
  int max_depth = 64;
  size_t max_bytes = size_t{256} << 20;
};

// Parses one JSON value. Unlike the library's own parser it refuses duplicate
// keys, integers beyond 64 bits, invalid UTF-8, trailing text and nesting
// deeper than the limit. InvalidArgument names the byte offset or the key.
absl::StatusOr<Json> ParseJson(absl::string_view text, const JsonLimits& limits = {});

// Writes JSON on one line (indent < 0) or indented. Bytes that are not UTF-8
// become U+FFFD.
std::string WriteJson(const Json& value, int indent = -1);

// Reads the members of one JSON object with types checked. Errors say which key
// of which thing has which value and what was expected. Borrows the object; not
// safe for concurrent use.
class JsonObject {
 public:
  // `what` names the object in messages: "config.json", "job spec: budget".
  static absl::StatusOr<JsonObject> Create(const Json& value, absl::string_view what);

  bool Has(absl::string_view key) const;          // present and not null
  const Json* Find(absl::string_view key) const;  // nullptr when absent or null
  const std::string& what() const { return what_; }

  // NotFound-style absence is InvalidArgument "... lacks KEY" in the first form
  // and the fallback in the second.
  absl::StatusOr<int64_t> Int(absl::string_view key, int64_t min, int64_t max) const;
  absl::StatusOr<int64_t> IntOr(absl::string_view key, int64_t min, int64_t max,
                                int64_t fallback) const;
  absl::StatusOr<double> Number(absl::string_view key) const;
  absl::StatusOr<double> NumberOr(absl::string_view key, double fallback) const;
  absl::StatusOr<bool> BoolOr(absl::string_view key, bool fallback) const;
  absl::StatusOr<std::string> String(absl::string_view key) const;
  absl::StatusOr<std::string> StringOr(absl::string_view key, absl::string_view fallback) const;
  // A member that is an object; what() of the result is "WHAT: KEY".
  absl::StatusOr<JsonObject> Object(absl::string_view key) const;

  // InvalidArgument that names the first key not in `known`, the known ones where they are few,
  // and the nearest of them.
  absl::Status RejectUnknownKeys(const std::vector<std::string>& known) const;

  // InvalidArgument "WHAT: KEY is VALUE, expected EXPECTED".
  absl::Status Wrong(absl::string_view key, absl::string_view expected) const;

 private:
  JsonObject(const Json& value, absl::string_view what) : value_(&value), what_(what) {}

  const Json* value_;
  std::string what_;
};

}  // namespace latentforge
