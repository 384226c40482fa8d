// Page sizes of list methods.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace latentforge::service {

// 0 means 50, more than 1000 means 1000. INVALID_ARGUMENT when negative.
inline absl::StatusOr<int> EffectivePageSize(int32_t requested) {
  if (requested < 0) {
    return MakeFieldError(kInvalidField,
                          {{"page_size", absl::StrCat("is ", requested, ", expected 0 or more")}});
  }
  return requested == 0 ? 50 : std::min(requested, 1000);
}

}  // namespace latentforge::service
