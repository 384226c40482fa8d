// Values of enums as users write and read them: "root-covariance".
#pragma once

#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/generated_enum_reflection.h"

namespace latentforge {

// "root-covariance" of PRECONDITIONER_ROOT_COVARIANCE; "" of the zero value.
std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value);

// The same of a value; the number of one that has no name.
template <typename Enum>
std::string ShortEnumName(Enum value) {
  const auto* descriptor = google::protobuf::GetEnumDescriptor<Enum>()->FindValueByNumber(value);
  return descriptor == nullptr ? std::to_string(static_cast<int>(value))
                               : ShortEnumName(*descriptor);
}

}  // namespace latentforge
