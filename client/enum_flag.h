// A flag whose value is the name of an enum's.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "client/field_text.h"
#include "google/protobuf/descriptor.h"

namespace latentforge::client {

// Calls `set` with the number of the value that `text` names; nothing without a text. Errors as
// ParseEnum.
template <typename Set>
absl::Status ApplyEnum(const char* flag, const std::optional<std::string>& text,
                       const google::protobuf::EnumDescriptor* type, Set set) {
  if (!text.has_value()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const int value, ParseEnum(*type, flag, *text));
  set(value);
  return absl::OkStatus();
}

}  // namespace latentforge::client
