// What to do about an error, and what its fields are called here.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace latentforge::client {

// One sentence on what to do about a reason; docs/errors.md lists all reasons. Empty
// where the message says it, or where nothing can be done.
std::string AdviceOn(absl::string_view reason);

// The flag or argument that sets a field of a request: "--out" of "spec.output.uri".
// A field without a flag stays as it is, without "spec.".
std::string FlagOfField(absl::string_view field);

}  // namespace latentforge::client
