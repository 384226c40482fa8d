// Drawing with gnuplot, as a program beside this one.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace latentforge {

// How every plot of ours begins: an SVG of one size and look with this title. gnuplot 5.
std::string PlotHead(absl::string_view title);

struct GnuplotOptions {
  std::filesystem::path program = "gnuplot";  // a name without "/" is looked up in PATH
  std::filesystem::path scratch;              // folder for the script
  absl::Duration limit = absl::Seconds(30);
};

// What the script writes to standard output. NotFound without the program; Internal with its last
// words when it fails or says nothing; DeadlineExceeded when it takes longer; errors of writing
// the script, which does not stay.
absl::StatusOr<std::string> RunGnuplot(const GnuplotOptions& options, absl::string_view script,
                                       const Clock& clock);

}  // namespace latentforge
