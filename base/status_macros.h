// Early return on errors, and context for messages.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace latentforge {

// The same code and payloads with "context: " before the message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace latentforge

#define LF_STATUS_CONCAT_INNER_(a, b) a##b
#define LF_STATUS_CONCAT_(a, b) LF_STATUS_CONCAT_INNER_(a, b)

// Returns the status of `expression` from the enclosing function unless OK.
#define LF_RETURN_IF_ERROR(expression)                                            \
  do {                                                                            \
    if (absl::Status lf_status = (expression); !lf_status.ok()) return lf_status; \
  } while (false)

// Assigns the value of a StatusOr, or returns its status.
#define LF_ASSIGN_OR_RETURN(lhs, expression) \
  LF_ASSIGN_OR_RETURN_IMPL_(LF_STATUS_CONCAT_(lf_status_or_, __LINE__), lhs, expression)

#define LF_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expression) \
  auto statusor = (expression);                              \
  if (!statusor.ok()) return std::move(statusor).status();   \
  lhs = std::move(statusor).value()
