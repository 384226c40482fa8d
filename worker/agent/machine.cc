#include "worker/agent/machine.h"

#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace latentforge::agent {
namespace {

constexpr int64_t kMaxProcFileBytes = 1 << 20;
constexpr int kMaxDevices = 64;

int64_t MachineMemoryBytes(const std::filesystem::path& root) {
  const absl::StatusOr<std::string> text = ReadFile(root / "proc/meminfo", kMaxProcFileBytes);
  if (!text.ok()) return 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    int64_t kilobytes = 0;
    if (absl::ConsumePrefix(&line, "MemTotal:") && absl::ConsumeSuffix(&line, "kB") &&
        absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kilobytes)) {
      return kilobytes * 1024;
    }
  }
  return 0;
}

}  // namespace

std::string HostName() {
  std::array<char, HOST_NAME_MAX + 1> name = {};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

int64_t UsableMemoryBytes(const std::filesystem::path& root) {
  int64_t bytes = MachineMemoryBytes(root);
  for (const char* file :
       {"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const absl::StatusOr<std::string> text = ReadFile(root / file, kMaxProcFileBytes);
    int64_t limit = 0;
    if (text.ok() && absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &limit) && limit > 0) {
      bytes = bytes > 0 ? std::min(bytes, limit) : limit;
    }
  }
  return bytes;
}

std::vector<std::string> Devices(const std::filesystem::path& root) {
  std::vector<std::string> devices = {"cpu"};
  for (int index = 0; index < kMaxDevices; ++index) {
    std::error_code error;
    if (std::filesystem::exists(root / "dev" / absl::StrCat("nvidia", index), error)) {
      devices.push_back(absl::StrCat("cuda:", index));
    }
  }
  return devices;
}

absl::Status CheckDevicePresent(absl::string_view device, const std::vector<std::string>& devices) {
  if (!absl::ConsumePrefix(&device, "cuda")) return absl::OkStatus();
  const std::string wanted = device.empty() ? "" : absl::StrCat("cuda", device);
  for (const std::string& present : devices) {
    if (wanted.empty() ? absl::StartsWith(present, "cuda:") : present == wanted) {
      return absl::OkStatus();
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat("is cuda", device, ", but this machine has ", absl::StrJoin(devices, ", "), " (",
                   device.empty() ? "no /dev/nvidiaN is there"
                                  : absl::StrCat("/dev/nvidia", device.substr(1), " is absent"),
                   ")"));
}

std::filesystem::path DefaultScratch() {
  const auto absolute = [](const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && value[0] == '/' ? std::filesystem::path(value)
                                               : std::filesystem::path();
  };
  if (const auto cache = absolute("XDG_CACHE_HOME"); !cache.empty()) {
    return cache / "latentforge/scratch";
  }
  if (const auto home = absolute("HOME"); !home.empty()) return home / ".cache/latentforge/scratch";
  return std::filesystem::path("/var/tmp") / absl::StrCat("latentforge-", geteuid());
}

}  // namespace latentforge::agent
