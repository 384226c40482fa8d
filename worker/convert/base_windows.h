// What the original's evaluation windows gave, for later jobs on the same model and text.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/convert/attempt.h"
#include "worker/convert/kept_folder.h"

namespace latentforge::convert {

// SHA-256 of all that the figures depend on: program version, source, the windows' tokens, and type
// and kind of device of the computation. (How many threads there are moves their last digits.)
std::string BaseWindowsKey(const Attempt& attempt, const Inputs& inputs);

// The files KEY.windows.json of a KeptFolder. Safe for concurrent use, also by processes.
class BaseWindows {
 public:
  explicit BaseWindows(KeptFolder folder) : folder_(std::move(folder)) {}

  // True when there is a file for `key`, whole or not.
  bool Has(const std::string& key) const { return folder_.Has(key, Kept::kWindows); }

  // Mean NLL of each of `count` windows, to the last bit as it was kept; empty when there are none.
  // A damaged file is removed, one that cannot be read stays; a log line says so.
  std::vector<double> Restore(const std::string& key, int64_t count) const;

  // File errors. Nothing without a folder.
  absl::Status Keep(const std::string& key, absl::Span<const double> window_nll) const;

 private:
  KeptFolder folder_;
};

}  // namespace latentforge::convert
