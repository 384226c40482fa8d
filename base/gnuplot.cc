#include "base/gnuplot.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/child_process.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge {
namespace {

absl::StatusOr<std::filesystem::path> Find(const std::filesystem::path& program) {
  if (program.has_parent_path()) return program;
  const char* const path = std::getenv("PATH");
  for (const absl::string_view folder : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    const std::filesystem::path candidate = std::filesystem::path(std::string(folder)) / program;
    if (!folder.empty() && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::NotFoundError(absl::StrCat(program.string(), " is not installed"));
}

std::string LastLine(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  return std::string(text.substr(text.rfind('\n') + 1));
}

absl::StatusOr<std::string> Run(const std::filesystem::path& program,
                                const std::filesystem::path& file, absl::Duration limit,
                                const Clock& clock) {
  LF_ASSIGN_OR_RETURN(
      const std::unique_ptr<ChildProcess> child,
      ChildProcess::Start(
          {.argv = {program.string(), file.string()}, .environment = {}, .log = {}}));
  const absl::Duration deadline = clock.Monotonic() + limit;
  ChildOutput output;
  while (!child->finished()) {
    const absl::Duration left = deadline - clock.Monotonic();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat(program.string(), " took longer than ", absl::FormatDuration(limit)));
    }
    LF_RETURN_IF_ERROR(child->Poll(/*wake_fd=*/-1, left, &output));
  }
  if (!child->exit_status().ok() || output.out.empty()) {
    return absl::InternalError(absl::StrCat(program.string(), " ended with ",
                                            child->exit_status().ToString(), ": ",
                                            LastLine(output.err)));
  }
  return output.out;
}

}  // namespace

// The legend lies above, where it hides nothing.
std::string PlotHead(absl::string_view title) {
  return absl::StrCat(
      "set terminal svg size 720,450 dynamic background '#ffffff' font 'sans-serif,13'\n"
      "set border 3 linecolor '#888888'\n"
      "set tics nomirror out textcolor '#444444'\n"
      "set grid ytics linecolor '#dddddd' linetype 1\n"
      "set key outside top center horizontal reverse Left samplen 2\n"
      "set title '",
      title, "'\n");
}

absl::StatusOr<std::string> RunGnuplot(const GnuplotOptions& options, absl::string_view script,
                                       const Clock& clock) {
  LF_ASSIGN_OR_RETURN(const std::filesystem::path program, Find(options.program));
  const std::filesystem::path file = options.scratch / "plot.gp";
  LF_RETURN_IF_ERROR(WriteFileAtomic(file, script));
  absl::StatusOr<std::string> output = Run(program, file, options.limit, clock);
  LF_RETURN_IF_ERROR(RemoveTree(file));
  return output;
}

}  // namespace latentforge
