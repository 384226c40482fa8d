#include "worker/agent/oom_kills.h"

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxCountsBytes = 1 << 20;

// The number behind "oom_kill " in a file of such lines.
std::optional<int64_t> ReadCount(const fs::path& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxCountsBytes);
  if (!text.ok()) return std::nullopt;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    int64_t count = 0;
    if (absl::ConsumePrefix(&line, "oom_kill ") && absl::SimpleAtoi(line, &count)) return count;
  }
  return std::nullopt;
}

// The folders that may be this process's control group: of version 2 ("0::/PATH") and of
// version 1 ("4:memory:/PATH"), whose files a container shows without the path.
std::vector<fs::path> CountFiles(const fs::path& root) {
  const fs::path groups = root / "sys/fs/cgroup";
  std::vector<fs::path> files;
  const absl::StatusOr<std::string> own = ReadFile(root / "proc/self/cgroup", kMaxCountsBytes);
  for (absl::string_view line : absl::StrSplit(own.value_or(""), '\n')) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const fs::path path = fs::path(fields[2]).relative_path();
    if (fields[1].empty()) files.push_back(groups / path / "memory.events");
    if (fields[1] == "memory") files.push_back(groups / "memory" / path / "memory.oom_control");
  }
  files.push_back(groups / "memory.events");
  files.push_back(groups / "memory/memory.oom_control");
  files.push_back(root / "proc/vmstat");
  return files;
}

}  // namespace

std::optional<int64_t> CountOomKills(const fs::path& root) {
  for (const fs::path& file : CountFiles(root)) {
    if (const std::optional<int64_t> count = ReadCount(file); count.has_value()) return count;
  }
  return std::nullopt;
}

}  // namespace latentforge::agent
