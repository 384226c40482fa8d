#include "worker/convert/proto_json.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "base/status_macros.h"

namespace latentforge::convert {

absl::StatusOr<JsonObject> ProtoMessage(const JsonObject& parent, absl::string_view key,
                                        const std::vector<std::string>& known) {
  static const Json* const kEmpty = [] {
    static const Json empty = Json::object();
    return &empty;
  }();
  if (!parent.Has(key)) return JsonObject::Create(*kEmpty, absl::StrCat(parent.what(), ": ", key));
  LF_ASSIGN_OR_RETURN(const JsonObject object, parent.Object(key));
  LF_RETURN_IF_ERROR(object.RejectUnknownKeys(known));
  return object;
}

absl::StatusOr<int64_t> ProtoInt(const JsonObject& object, absl::string_view key, int64_t min,
                                 int64_t max, int64_t fallback) {
  const Json* member = object.Find(key);
  if (member == nullptr) return fallback;
  if (!member->is_string()) return object.Int(key, min, max);
  int64_t value = 0;
  if (!absl::SimpleAtoi(member->get_ref<const std::string&>(), &value) || value < min ||
      value > max) {
    return object.Wrong(key, absl::StrCat("an integer from ", min, " to ", max));
  }
  return value;
}

absl::StatusOr<uint64_t> ProtoUint64(const JsonObject& object, absl::string_view key) {
  const Json* member = object.Find(key);
  if (member == nullptr) return 0;
  uint64_t value = 0;
  if (member->is_number_unsigned()) return member->get<uint64_t>();
  if (!member->is_string() || !absl::SimpleAtoi(member->get_ref<const std::string&>(), &value)) {
    return object.Wrong(key, "an integer from 0 to 18446744073709551615");
  }
  return value;
}

absl::StatusOr<double> ProtoDouble(const JsonObject& object, absl::string_view key,
                                   double fallback) {
  const Json* member = object.Find(key);
  if (member == nullptr) return fallback;
  if (!member->is_string()) return object.Number(key);
  double value = 0;
  if (!absl::SimpleAtod(member->get_ref<const std::string&>(), &value) || !std::isfinite(value)) {
    return object.Wrong(key, "a finite number");
  }
  return value;
}

}  // namespace latentforge::convert
