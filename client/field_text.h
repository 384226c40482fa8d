// Protobuf fields as users write them in job files, flags and --set: JSON names
// or .proto names, and short enum values ("root-covariance").
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// The field that is called `name` (JSON name or .proto name). InvalidArgument
// lists the fields, with `others` that may stand beside them, and names the nearest.
absl::StatusOr<const google::protobuf::FieldDescriptor*> FindField(
    const google::protobuf::Descriptor& message, absl::string_view name,
    const std::vector<std::string>& others = {});

// Every short name of an enum but that of its zero value.
std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type);
// The same as a text: "joint, local".
std::string EnumChoices(const google::protobuf::EnumDescriptor& type);

// The value that is written "root-covariance", "root_covariance" or
// "PRECONDITIONER_ROOT_COVARIANCE"; formats may also be "fp32", "bf16", "fp16".
// InvalidArgument "NAME is "TEXT", expected ..." lists what is allowed.
absl::StatusOr<int> ParseEnum(const google::protobuf::EnumDescriptor& type, absl::string_view name,
                              absl::string_view text);

// The same for a field of a specification; "expected" leaves out what the API names and the field
// does not take: methods of later versions, and for the computation float16.
absl::StatusOr<int> ParseEnumField(const google::protobuf::FieldDescriptor& field,
                                   absl::string_view name, absl::string_view text);

// The format of the computation; InvalidArgument for float16 too.
absl::StatusOr<v1::DataType> ParseComputeType(absl::string_view name, absl::string_view text);

// A time span: "90s", "2h30m". InvalidArgument "NAME is "TEXT", expected ..." when it is not
// positive.
absl::Status ParseDuration(absl::string_view name, absl::string_view text,
                           google::protobuf::Message* duration);

// Sets (or, for a repeated field, appends) a number, text, truth value or enum.
// InvalidArgument says which field has which value and what was expected; also for a 0 that would
// be read as "not set", and so mean another value.
absl::Status SetScalar(const google::protobuf::FieldDescriptor& field, absl::string_view text,
                       google::protobuf::Message* message);

}  // namespace latentforge::client
