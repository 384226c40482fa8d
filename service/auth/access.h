// Which roles may call which method.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "service/auth/identity.h"

namespace latentforge::service {

// One row of the table of methods.
struct MethodAccess {
  absl::string_view service;  // full name
  absl::string_view method;   // "*": all of the service's
  bool anyone = false;        // also callers that do not say who they are
  bool user = false;
  bool worker = false;
  bool audited = false;  // changes something: one line in the log for each call
};

// nullptr for a method without a row: nobody may call it.
const MethodAccess* FindAccess(absl::string_view service, absl::string_view method);

// PermissionDenied with reason ROLE_NOT_ALLOWED.
absl::Status Authorize(const Identity& caller, absl::string_view service, absl::string_view method);

}  // namespace latentforge::service
