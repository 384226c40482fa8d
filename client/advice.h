// What to do about an error, and what its fields are called here.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::client {

// One sentence on what to do about a reason; docs/errors.md lists all reasons. Empty for
// reasons that are not known here.
std::string AdviceOn(absl::string_view reason);

// The same about an error that has no more than a code. Empty for wrong usage: the
// command's help is what helps.
std::string AdviceOn(absl::StatusCode code);

// The flag or argument that sets a field of a request: "--out" of "spec.output.uri".
// A field without a flag stays as it is, without "spec.".
std::string FlagOfField(absl::string_view field);

// A description of a wrong field with fields of the API under the names of their flags:
// "expected none beside --max-perplexity-ratio".
std::string WithFlagNames(absl::string_view description);

}  // namespace latentforge::client
