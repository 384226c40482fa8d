// Whether bytes are text.
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace latentforge {

// The offset of the first byte that is not part of valid UTF-8 (surrogates and
// overlong forms are not); text.size() when all is.
size_t ValidUtf8Prefix(absl::string_view text);

}  // namespace latentforge
