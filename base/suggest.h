// "Did you mean" for flags, commands and field names.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace latentforge {

// The candidate nearest to `typed` by edit distance (adjacent swaps count as
// one); empty when none is near enough to be a likely typing error.
std::string Nearest(absl::string_view typed, const std::vector<std::string>& candidates);

// "; did you mean CANDIDATE?" or "".
std::string DidYouMean(absl::string_view typed, const std::vector<std::string>& candidates);

}  // namespace latentforge
