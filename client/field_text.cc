#include "client/field_text.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "base/suggest.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/duration.pb.h"
#include "proto/enum_text.h"

namespace latentforge::client {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string CanonicalEnumText(absl::string_view text) {
  std::string canonical =
      absl::StrReplaceAll(absl::AsciiStrToUpper(absl::string_view(text)), {{"-", "_"}});
  if (canonical == "FP32") return "FLOAT32";
  if (canonical == "BF16") return "BFLOAT16";
  if (canonical == "FP16") return "FLOAT16";
  return canonical;
}

absl::Status WrongValue(absl::string_view name, absl::string_view text,
                        absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(name, " is \"", text, "\", expected ", expected));
}

absl::Status WrongValue(const FieldDescriptor& field, absl::string_view text,
                        absl::string_view expected) {
  return WrongValue(field.json_name(), text, expected);
}

bool IsField(const FieldDescriptor& field, const Descriptor& message, int number) {
  return field.containing_type() == &message && field.number() == number;
}

// The wire cannot tell the 0 of a field without presence from its absence. For these both are one.
bool ZeroIsAValue(const FieldDescriptor& field) {
  return field.has_presence() || field.containing_type() == v1::LayerRank::descriptor() ||
         IsField(field, *v1::CalibrationSpec::descriptor(),
                 v1::CalibrationSpec::kSeedFieldNumber) ||
         IsField(field, *v1::HealingSpec::descriptor(), v1::HealingSpec::kWeightDecayFieldNumber) ||
         IsField(field, *v1::HealingSpec::descriptor(), v1::HealingSpec::kAttentionLossFieldNumber);
}

// Values that the API names and the field does not take.
std::vector<int> NotOffered(const FieldDescriptor& field) {
  const Descriptor& spec = *v1::JobSpec::descriptor();
  if (IsField(field, spec, v1::JobSpec::kMethodFieldNumber)) return {v1::METHOD_FULL_MLA};
  if (IsField(field, spec, v1::JobSpec::kDtypeFieldNumber)) return {v1::DATA_TYPE_FLOAT16};
  return {};
}

std::optional<int> FindEnumValue(const EnumDescriptor& type, absl::string_view text) {
  const std::string canonical = CanonicalEnumText(text);
  for (int i = 0; i < type.value_count(); ++i) {
    const EnumValueDescriptor* value = type.value(i);
    const std::string short_name = CanonicalEnumText(ShortEnumName(*value));
    if (canonical == value->name() || (!short_name.empty() && canonical == short_name)) {
      return value->number();
    }
  }
  return std::nullopt;
}

absl::Status NoEnumValue(absl::string_view name, absl::string_view text,
                         const std::vector<std::string>& offered) {
  return WrongValue(name, text,
                    absl::StrCat(offered.size() == 1 ? "" : "one of ", absl::StrJoin(offered, ", "),
                                 DidYouMean(text, offered)));
}

template <typename T>
void Store(const FieldDescriptor& field, T value, Message* message,
           void (Reflection::*set)(Message*, const FieldDescriptor*, T) const,
           void (Reflection::*add)(Message*, const FieldDescriptor*, T) const) {
  const Reflection& reflection = *message->GetReflection();
  (reflection.*(field.is_repeated() ? add : set))(message, &field, value);
}

// A number; `text` is how it was written.
template <typename T>
absl::Status StoreNumber(const FieldDescriptor& field, absl::string_view text, T value,
                         Message* message,
                         void (Reflection::*set)(Message*, const FieldDescriptor*, T) const,
                         void (Reflection::*add)(Message*, const FieldDescriptor*, T) const) {
  if (value == 0 && !ZeroIsAValue(field)) {
    return WrongValue(field, text, "another number than 0, or none for the default");
  }
  Store(field, value, message, set, add);
  return absl::OkStatus();
}

absl::Status SetInteger(const FieldDescriptor& field, absl::string_view text, Message* message) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return WrongValue(field, text, "a 32-bit integer");
      return StoreNumber(field, text, value, message, &Reflection::SetInt32, &Reflection::AddInt32);
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return WrongValue(field, text, "a 64-bit integer");
      return StoreNumber(field, text, value, message, &Reflection::SetInt64, &Reflection::AddInt64);
    }
    default: {
      uint64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) {
        return WrongValue(field, text, "an integer from 0 to 2^64 - 1");
      }
      return StoreNumber(field, text, value, message, &Reflection::SetUInt64,
                         &Reflection::AddUInt64);
    }
  }
}

absl::Status SetDouble(const FieldDescriptor& field, absl::string_view text, Message* message) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) {
    return WrongValue(field, text, "a finite number");
  }
  return StoreNumber(field, text, value, message, &Reflection::SetDouble, &Reflection::AddDouble);
}

}  // namespace

absl::StatusOr<const FieldDescriptor*> FindField(const Descriptor& message, absl::string_view name,
                                                 const std::vector<std::string>& others) {
  std::vector<std::string> known = others;
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor* field = message.field(i);
    if (name == field->json_name() || name == field->name()) return field;
    known.push_back(field->json_name());
  }
  return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" is not a field of ",
                                                 message.name(), " (", absl::StrJoin(known, ", "),
                                                 ")", DidYouMean(name, known)));
}

std::vector<std::string> ShortEnumNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() != 0) names.push_back(ShortEnumName(*type.value(i)));
  }
  return names;
}

std::string EnumChoices(const EnumDescriptor& type) {
  return absl::StrJoin(ShortEnumNames(type), ", ");
}

absl::StatusOr<int> ParseEnum(const EnumDescriptor& type, absl::string_view name,
                              absl::string_view text) {
  if (const std::optional<int> value = FindEnumValue(type, text); value.has_value()) return *value;
  return NoEnumValue(name, text, ShortEnumNames(type));
}

absl::StatusOr<int> ParseEnumField(const FieldDescriptor& field, absl::string_view name,
                                   absl::string_view text) {
  const EnumDescriptor& type = *field.enum_type();
  if (const std::optional<int> value = FindEnumValue(type, text); value.has_value()) return *value;
  const std::vector<int> withheld = NotOffered(field);
  std::vector<std::string> offered;
  for (int i = 0; i < type.value_count(); ++i) {
    const int number = type.value(i)->number();
    if (number != 0 && std::count(withheld.begin(), withheld.end(), number) == 0) {
      offered.push_back(ShortEnumName(*type.value(i)));
    }
  }
  return NoEnumValue(name, text, offered);
}

absl::StatusOr<v1::DataType> ParseComputeType(absl::string_view name, absl::string_view text) {
  const FieldDescriptor& field =
      *v1::JobSpec::descriptor()->FindFieldByNumber(v1::JobSpec::kDtypeFieldNumber);
  LF_ASSIGN_OR_RETURN(const int value, ParseEnumField(field, name, text));
  if (value != v1::DATA_TYPE_FLOAT16) return static_cast<v1::DataType>(value);
  return WrongValue(name, text, "float32 or bfloat16: float16 is for output only");
}

absl::Status ParseDuration(absl::string_view name, absl::string_view text, Message* duration) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value <= absl::ZeroDuration() ||
      value > absl::Hours(24 * 365)) {
    return WrongValue(name, text, "a time span of at most a year, such as 90s, 45m or 2h30m");
  }
  google::protobuf::Duration parsed;
  parsed.set_seconds(absl::IDivDuration(value, absl::Seconds(1), &value));
  parsed.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(value)));
  duration->CopyFrom(parsed);
  return absl::OkStatus();
}

absl::Status SetScalar(const FieldDescriptor& field, absl::string_view text, Message* message) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT64:
      return SetInteger(field, text, message);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return SetDouble(field, text, message);
    case FieldDescriptor::CPPTYPE_BOOL: {
      if (text != "true" && text != "false") return WrongValue(field, text, "true or false");
      Store(field, text == "true", message, &Reflection::SetBool, &Reflection::AddBool);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_STRING:
      if (field.is_repeated()) {
        message->GetReflection()->AddString(message, &field, std::string(text));
      } else {
        message->GetReflection()->SetString(message, &field, std::string(text));
      }
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_ENUM: {
      LF_ASSIGN_OR_RETURN(const int value, ParseEnumField(field, field.json_name(), text));
      Store(field, value, message, &Reflection::SetEnumValue, &Reflection::AddEnumValue);
      return absl::OkStatus();
    }
    default:
      return WrongValue(field, text, "a mapping");
  }
}

}  // namespace latentforge::client
