// Which texts cjose may see.
#pragma once

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

// Whether `text` is base64url without padding, as RFC 7515 wants it. cjose 0.6.2 ends the
// process (assert) on some texts that are not.
inline bool IsBase64Url(absl::string_view text) {
  return !text.empty() && text.size() % 4 != 1 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_';
         });
}

}  // namespace latentforge::service
