#include "worker/convert/kept_folder.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <optional>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;

constexpr size_t kKeyLength = 64;
constexpr std::array<absl::string_view, 3> kSuffixes = {".safetensors", ".layers", ".windows.json"};

absl::string_view Suffix(Kept kind) { return kSuffixes[static_cast<size_t>(kind)]; }

// What one of our names begins with: a SHA-256 and a suffix.
std::optional<Kept> ConsumeKept(absl::string_view* name) {
  const absl::string_view key = name->substr(0, kKeyLength);
  const bool is_key =
      key.size() == kKeyLength && std::all_of(key.begin(), key.end(), [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
      });
  if (!is_key) return std::nullopt;
  name->remove_prefix(kKeyLength);
  for (const Kept kind : {Kept::kStatistics, Kept::kLayers, Kept::kWindows}) {
    if (absl::ConsumePrefix(name, Suffix(kind))) return kind;
  }
  return std::nullopt;
}

// KEY.safetensors
std::optional<Kept> KindOfKept(absl::string_view name) {
  const std::optional<Kept> kind = ConsumeKept(&name);
  return name.empty() ? kind : std::nullopt;
}

// KEY.safetensors.PID.tmp, and KEY.layers.PID.gone.tmp while it is removed
std::optional<Kept> KindOfTemporary(absl::string_view name) {
  const std::optional<Kept> kind = ConsumeKept(&name);
  if (!kind || !absl::ConsumePrefix(&name, ".") || !absl::ConsumeSuffix(&name, ".tmp")) {
    return std::nullopt;
  }
  absl::ConsumeSuffix(&name, ".gone");
  const bool number = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  return number && !name.empty() ? kind : std::nullopt;
}

struct Entry {
  fs::file_time_type used;
  fs::path path;
  int64_t bytes = 0;
};

// Of a file, or of the files of a folder.
int64_t BytesOf(const fs::path& path, Kept kind) {
  std::error_code error;
  if (kind != Kept::kLayers) {
    const uintmax_t bytes = fs::file_size(path, error);
    return error ? 0 : int64_t(bytes);
  }
  int64_t total = 0;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code gone;
    const uintmax_t bytes = entry->file_size(gone);
    if (!gone) total += int64_t(bytes);
  }
  return total;
}

// Links aside; a folder that has an index when it is `whole`.
bool IsOurs(const fs::path& path, Kept kind, bool whole) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (kind != Kept::kLayers) return fs::is_regular_file(status);
  return fs::is_directory(status) &&
         (!whole || fs::is_regular_file(fs::symlink_status(path / kKeptIndex, error)));
}

// Whose time says when it was used last.
fs::path Dated(const fs::path& path, Kept kind) {
  return kind == Kept::kLayers ? path / kKeptIndex : path;
}

// What `folder` holds under such names; nothing where it cannot be read.
std::vector<Entry> EntriesOf(const fs::path& folder,
                             std::optional<Kept> (*kind_of)(absl::string_view), bool whole) {
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::optional<Kept> kind = kind_of(entry->path().filename().string());
    if (!kind || !IsOurs(entry->path(), *kind, whole)) continue;
    std::error_code gone;
    const fs::path dated = whole ? Dated(entry->path(), *kind) : entry->path();
    const fs::file_time_type used = fs::last_write_time(dated, gone);
    if (!gone) entries.push_back({used, entry->path(), BytesOf(entry->path(), *kind)});
  }
  return entries;
}

// True when it is gone. The log says so either way.
bool RemoveOurs(const fs::path& path, Severity severity, absl::string_view why) {
  // A folder goes at once, under a name that counts as nothing, then its files.
  const fs::path gone = absl::StrCat(path.string(), ".", getpid(), ".gone.tmp");
  const bool moved = KindOfKept(path.filename().string()) == Kept::kLayers &&
                     std::rename(path.c_str(), gone.c_str()) == 0;
  const absl::Status removed = RemoveTree(moved ? gone : path);
  Log(removed.ok() ? severity : Severity::kWarning,
      removed.ok() ? "kept statistics were removed" : "kept statistics cannot be removed",
      {{"file", path.string()}, {"reason", std::string(removed.ok() ? why : removed.message())}});
  return removed.ok();
}

}  // namespace

fs::path KeptFolder::PathOf(const std::string& key, Kept kind) const {
  return folder_ / absl::StrCat(key, Suffix(kind));
}

// Of this process: another may keep the same at the same time.
fs::path KeptFolder::Temporary(const std::string& key, Kept kind) const {
  return absl::StrCat(PathOf(key, kind).string(), ".", getpid(), ".tmp");
}

bool KeptFolder::Has(const std::string& key, Kept kind) const {
  std::error_code error;
  return !none() && fs::exists(fs::symlink_status(PathOf(key, kind), error));
}

absl::StatusOr<fs::path> KeptFolder::Begin(const std::string& key, Kept kind, int64_t bytes) const {
  if (bytes > limit_bytes_) {
    return absl::FailedPreconditionError(
        absl::StrCat("they take ", bytes, " bytes, expected at most ", limit_bytes_));
  }
  LF_RETURN_IF_ERROR(CreateDirectories(folder_));
  RemoveAbandoned();
  fs::path temporary = Temporary(key, kind);
  LF_RETURN_IF_ERROR(RemoveTree(temporary));
  return temporary;
}

absl::Status KeptFolder::Finish(const std::string& key, Kept kind) const {
  const fs::path path = PathOf(key, kind);
  // A file takes the place of another by itself.
  if (kind == Kept::kLayers && IsOurs(path, kind, /*whole=*/true)) {
    RemoveOurs(path, Severity::kInfo, "others take their place");
  }
  if (std::rename(Temporary(key, kind).c_str(), path.c_str()) != 0) {
    const absl::Status failed = ErrnoStatus(errno, "rename to", path);
    LF_RETURN_IF_ERROR(Abandon(key, kind));
    return failed;
  }
  RemoveOldest(path);
  return absl::OkStatus();
}

absl::Status KeptFolder::Abandon(const std::string& key, Kept kind) const {
  return RemoveTree(Temporary(key, kind));
}

void KeptFolder::MarkUsed(const std::string& key, Kept kind) const {
  std::error_code ignored;
  fs::last_write_time(Dated(PathOf(key, kind), kind), fs::file_time_type::clock::now(), ignored);
}

void KeptFolder::Remove(const std::string& key, Kept kind, Severity severity,
                        absl::string_view why) const {
  const fs::path path = PathOf(key, kind);
  if (IsOurs(path, kind, /*whole=*/true)) {
    RemoveOurs(path, severity, why);
    return;
  }
  Log(Severity::kWarning, "kept statistics are not as this program keeps them, and stay",
      {{"file", path.string()}, {"reason", std::string(why)}});
}

// Of processes that died while they wrote.
void KeptFolder::RemoveAbandoned() const {
  const auto abandoned = fs::file_time_type::clock::now() - std::chrono::hours(24);
  for (const Entry& entry : EntriesOf(folder_, KindOfTemporary, /*whole=*/false)) {
    if (entry.used < abandoned) {
      RemoveOurs(entry.path, Severity::kInfo, "left by a process that died");
    }
  }
}

void KeptFolder::RemoveOldest(const fs::path& keep) const {
  std::vector<Entry> entries = EntriesOf(folder_, KindOfKept, /*whole=*/true);
  int64_t total = 0;
  for (const Entry& entry : entries) total += entry.bytes;
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= limit_bytes_) return;
    if (entry.path == keep || !RemoveOurs(entry.path, Severity::kInfo, "unused for longest")) {
      continue;
    }
    total -= entry.bytes;
  }
}

}  // namespace latentforge::convert
