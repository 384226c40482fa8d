// Members of proto3 JSON objects, where numbers may be written as text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace latentforge::convert {

// The member message, or an empty one; a key that is not `known` is an error.
absl::StatusOr<JsonObject> ProtoMessage(const JsonObject& parent, absl::string_view key,
                                        const std::vector<std::string>& known);

// An integer in [min, max], or `fallback` when absent.
absl::StatusOr<int64_t> ProtoInt(const JsonObject& object, absl::string_view key, int64_t min,
                                 int64_t max, int64_t fallback);

// An unsigned integer, or 0 when absent.
absl::StatusOr<uint64_t> ProtoUint64(const JsonObject& object, absl::string_view key);

// A finite number, or `fallback` when absent.
absl::StatusOr<double> ProtoDouble(const JsonObject& object, absl::string_view key,
                                   double fallback);

// Enum values by their names in the .proto; absent or the first name gives the
// first value. InvalidArgument names the value and the known names.
template <typename T, size_t N>
absl::StatusOr<T> ProtoEnum(const JsonObject& object, absl::string_view key,
                            const std::array<std::pair<const char*, T>, N>& values) {
  const Json* member = object.Find(key);
  if (member == nullptr) return values[0].second;
  for (const auto& [name, value] : values) {
    if (member->is_string() && member->get_ref<const std::string&>() == name) return value;
  }
  const auto append = [](std::string* out, const auto& entry) { out->append(entry.first); };
  return object.Wrong(key, absl::StrCat("one of ", absl::StrJoin(values, ", ", append)));
}

// The name of a value; for two names of one value the one that says it.
template <typename T, size_t N>
const char* ProtoEnumName(const std::array<std::pair<const char*, T>, N>& values, const T& wanted) {
  for (size_t i = N; i-- > 0;) {
    if (values[i].second == wanted &&
        (i == 0 || !absl::EndsWith(values[i].first, "_UNSPECIFIED"))) {
      return values[i].first;
    }
  }
  return values[0].first;
}

}  // namespace latentforge::convert
