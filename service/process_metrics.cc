#include "service/process_metrics.h"

#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

// Fields of self/stat, counted as in proc(5), from 1.
constexpr size_t kUserTime = 14;
constexpr size_t kSystemTime = 15;
constexpr size_t kStartTime = 22;
constexpr size_t kVirtualSize = 23;
constexpr size_t kResidentPages = 24;
// The first field behind the program's name, which may hold spaces and brackets.
constexpr size_t kFirstBehindName = 3;

absl::Status Unexpected(const fs::path& path, absl::string_view expected) {
  return absl::InternalError(
      absl::StrCat(path.string(), " is not as proc(5) says, expected ", expected));
}

absl::StatusOr<std::vector<std::string>> FieldsBehindName(const fs::path& path) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 16));
  const size_t bracket = text.rfind(')');
  if (bracket == std::string::npos) return Unexpected(path, "a name in brackets");
  return std::vector<std::string>(absl::StrSplit(absl::string_view(text).substr(bracket + 1),
                                                 absl::ByAnyChar(" \n"), absl::SkipEmpty()));
}

// The words of the line that starts with `key`, without it; empty when there is none.
absl::StatusOr<std::vector<std::string>> WordsOfLine(const fs::path& path, absl::string_view key) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 16 << 20));
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key)) continue;
    return std::vector<std::string>(absl::StrSplit(line, ' ', absl::SkipEmpty()));
  }
  return std::vector<std::string>();
}

absl::Status ReadStat(const fs::path& proc, ProcessUsage& usage) {
  const fs::path path = proc / "self/stat";
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> fields, FieldsBehindName(path));
  const auto number = [&](size_t field, int64_t& value) {
    const size_t index = field - kFirstBehindName;
    return index < fields.size() && absl::SimpleAtoi(fields[index], &value);
  };
  int64_t user = 0;
  int64_t system = 0;
  int64_t start = 0;
  int64_t pages = 0;
  if (!number(kUserTime, user) || !number(kSystemTime, system) || !number(kStartTime, start) ||
      !number(kVirtualSize, usage.virtual_bytes) || !number(kResidentPages, pages)) {
    return Unexpected(path, absl::StrCat("whole numbers up to field ", kResidentPages));
  }
  const fs::path boot_path = proc / "stat";
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> boot, WordsOfLine(boot_path, "btime "));
  int64_t boot_time = 0;
  if (boot.empty() || !absl::SimpleAtoi(boot[0], &boot_time)) {
    return Unexpected(boot_path, "a line btime");
  }
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  usage.cpu_seconds = static_cast<double>(user + system) / ticks;
  usage.start_time_seconds = static_cast<double>(boot_time) + static_cast<double>(start) / ticks;
  usage.resident_bytes = pages * sysconf(_SC_PAGESIZE);
  return absl::OkStatus();
}

absl::Status ReadFiles(const fs::path& proc, ProcessUsage& usage) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> open, ListDirectory(proc / "self/fd"));
  usage.open_files = static_cast<int64_t>(open.size());
  const fs::path path = proc / "self/limits";
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> limit, WordsOfLine(path, "Max open files "));
  if (limit.empty()) return Unexpected(path, "a line \"Max open files\"");
  if (limit[0] == "unlimited") return absl::OkStatus();
  if (!absl::SimpleAtoi(limit[0], &usage.max_files)) return Unexpected(path, "a number of files");
  return absl::OkStatus();
}

prometheus::MetricFamily Family(const char* name, const char* help, double value,
                                prometheus::MetricType type) {
  prometheus::ClientMetric metric;
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {name, help, type, {metric}};
}

}  // namespace

absl::StatusOr<ProcessUsage> ReadProcessUsage(const fs::path& proc) {
  ProcessUsage usage;
  LF_RETURN_IF_ERROR(ReadStat(proc, usage));
  LF_RETURN_IF_ERROR(ReadFiles(proc, usage));
  return usage;
}

std::vector<prometheus::MetricFamily> ProcessCollector::Collect() const {
  const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(proc_);
  if (!usage.ok()) return {};
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families = {
      Family("process_cpu_seconds_total", "User and system processor time in seconds",
             usage->cpu_seconds, MetricType::Counter),
      Family("process_resident_memory_bytes", "Resident memory in bytes",
             static_cast<double>(usage->resident_bytes), MetricType::Gauge),
      Family("process_virtual_memory_bytes", "Virtual memory in bytes",
             static_cast<double>(usage->virtual_bytes), MetricType::Gauge),
      Family("process_open_fds", "Open file descriptors", static_cast<double>(usage->open_files),
             MetricType::Gauge),
      Family("process_start_time_seconds", "Start of the process in seconds since the epoch",
             usage->start_time_seconds, MetricType::Gauge)};
  if (usage->max_files > 0) {
    families.push_back(Family("process_max_fds", "Largest number of open file descriptors",
                              static_cast<double>(usage->max_files), MetricType::Gauge));
  }
  return families;
}

}  // namespace latentforge::service
