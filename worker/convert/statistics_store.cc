#include "worker/convert/statistics_store.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using factorize::LossStatistics;

constexpr absl::string_view kSuffix = ".safetensors";
constexpr size_t kKeyLength = 64;

// What one of our names begins with: a SHA-256 and the suffix.
bool ConsumeKept(absl::string_view* name) {
  const absl::string_view key = name->substr(0, kKeyLength);
  const bool is_key =
      key.size() == kKeyLength && std::all_of(key.begin(), key.end(), [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
      });
  if (!is_key) return false;
  name->remove_prefix(kKeyLength);
  return absl::ConsumePrefix(name, kSuffix);
}

// KEY.safetensors
bool IsKept(absl::string_view name) { return ConsumeKept(&name) && name.empty(); }

// KEY.safetensors.PID.tmp
bool IsTemporary(absl::string_view name) {
  if (!ConsumeKept(&name) || !absl::ConsumePrefix(&name, ".") ||
      !absl::ConsumeSuffix(&name, ".tmp")) {
    return false;
  }
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
}

struct File {
  fs::file_time_type used;
  fs::path path;
  int64_t bytes = 0;
};

// The regular files of `folder`, links aside, with such a name; none where it cannot be read.
std::vector<File> FilesOf(const fs::path& folder, bool (*has_name)(absl::string_view)) {
  std::vector<File> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code gone;
    if (!has_name(entry->path().filename().string()) ||
        !fs::is_regular_file(entry->symlink_status(gone))) {
      continue;
    }
    const fs::file_time_type used = entry->last_write_time(gone);
    const auto bytes = gone ? 0 : int64_t(entry->file_size(gone));
    if (!gone) files.push_back({used, entry->path(), bytes});
  }
  return files;
}

// Removes a regular file; true when it is gone. The log says so either way.
bool Remove(const fs::path& path, Severity severity, absl::string_view why) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(path, error))) {
    Log(Severity::kWarning, "kept statistics are not a regular file and stay",
        {{"file", path.string()}, {"reason", std::string(why)}});
    return false;
  }
  fs::remove(path, error);
  Log(error ? Severity::kWarning : severity,
      error ? "kept statistics cannot be removed" : "kept statistics were removed",
      {{"file", path.string()}, {"reason", error ? error.message() : std::string(why)}});
  return !error;
}

}  // namespace

std::string StatisticsKey(const JobSpec& spec, const Inputs& inputs) {
  const bool sampled = spec.labels == calibrate::FisherLabels::kSampled;
  const auto* ids = reinterpret_cast<const char*>(inputs.sequences.ids.data());
  return Sha256Hex(absl::StrCat(
      kVersion, "\n", inputs.source_digest, "\n", static_cast<int>(spec.dtype), "\n",
      sampled ? absl::StrCat("sampled ", spec.seed) : "text", "\n", inputs.sequences.length, "\n",
      Sha256Hex({ids, inputs.sequences.ids.size() * sizeof(int32_t)})));
}

StatisticsId StatisticsIdOf(const JobSpec& spec, const Inputs& inputs) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  return {StatisticsKey(spec, inputs), config.num_layers, 2 * config.kv_width()};
}

bool StatisticsStore::Has(const std::string& key) const {
  std::error_code error;
  return !folder_.empty() && fs::exists(fs::symlink_status(PathOf(key), error));
}

int64_t StatisticsStore::BytesToKeep(const StatisticsId& id) const {
  const int64_t bytes = StatisticsFileBytes(id);
  return folder_.empty() || Has(id.key) || bytes > limit_bytes_ ? 0 : bytes;
}

absl::StatusOr<bool> StatisticsStore::Restore(const StatisticsId& id, const WorkDir& work) const {
  if (folder_.empty()) return false;
  const fs::path path = PathOf(id.key);
  const auto unusable = [&](const absl::Status& status) {
    if (absl::IsDataLoss(status)) {
      Remove(path, Severity::kWarning, status.message());
    } else if (!absl::IsNotFound(status)) {
      Log(Severity::kWarning, "kept statistics cannot be read",
          {{"file", path.string()}, {"error", std::string(status.message())}});
    }
    return false;
  };
  const absl::StatusOr<StatisticsFile> file = StatisticsFile::Open(path, id);
  if (!file.ok()) return unusable(file.status());
  for (int64_t layer = 0; layer < id.layers; ++layer) {
    const absl::StatusOr<LossStatistics> statistics = file->Layer(layer);
    if (!statistics.ok()) return unusable(statistics.status());
    LF_RETURN_IF_ERROR(SaveLossStatistics(LossStatisticsPath(work, layer), *statistics));
  }
  std::error_code ignored;  // only the order of removal depends on it
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
  return true;
}

absl::Status StatisticsStore::Keep(const StatisticsId& id, const WorkDir& work) const {
  if (folder_.empty()) return absl::OkStatus();
  if (const int64_t bytes = StatisticsFileBytes(id); bytes > limit_bytes_) {
    return absl::FailedPreconditionError(
        absl::StrCat("they take ", bytes, " bytes, expected at most ", limit_bytes_));
  }
  LF_RETURN_IF_ERROR(CreateDirectories(folder_));
  RemoveAbandoned();
  const fs::path path = PathOf(id.key);
  // Of this process: another may keep the same statistics at the same time.
  const fs::path temporary = absl::StrCat(path.string(), ".", getpid(), ".tmp");
  LF_RETURN_IF_ERROR(RemoveTree(temporary));
  const absl::Status written = WriteStatisticsFile(temporary, id, [&](int64_t layer) {
    return LoadLossStatistics(LossStatisticsPath(work, layer), id.width);
  });
  if (!written.ok() || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status renamed = ErrnoStatus(errno, "rename to", path);
    LF_RETURN_IF_ERROR(RemoveTree(temporary));
    return written.ok() ? renamed : written;
  }
  RemoveOldest(path);
  return absl::OkStatus();
}

// Of processes that died while they wrote.
void StatisticsStore::RemoveAbandoned() const {
  const auto abandoned = fs::file_time_type::clock::now() - std::chrono::hours(24);
  for (const File& file : FilesOf(folder_, IsTemporary)) {
    if (file.used < abandoned) Remove(file.path, Severity::kInfo, "left by a process that died");
  }
}

void StatisticsStore::RemoveOldest(const fs::path& keep) const {
  std::vector<File> files = FilesOf(folder_, IsKept);
  int64_t total = 0;
  for (const File& file : files) total += file.bytes;
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.used < b.used; });
  for (const File& file : files) {
    if (total <= limit_bytes_) return;
    if (file.path == keep || !Remove(file.path, Severity::kInfo, "unused for longest")) continue;
    total -= file.bytes;
  }
}

}  // namespace latentforge::convert
