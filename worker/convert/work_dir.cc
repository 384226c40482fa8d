#include "worker/convert/work_dir.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace latentforge::convert {
namespace {

// Files of hidden states, gradients and rows are not synced: they outlive a killed process, not a
// machine.
constexpr std::array<const char*, 5> kUnsynced = {"hidden.", "gradient.", "original.", "converted.",
                                                  "mlp."};
// Nor those of factors where WorkState::unsynced_factors says so.
constexpr const char* kFactors = "layer.";

// Changes with every start of the machine; empty where it is not known.
std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

// nullopt-like: an empty object when the text is no state of this version.
Json ParseState(absl::string_view text) {
  const auto json = ParseJson(text);
  if (!json.ok() || !json->is_object()) return Json::object();
  return json->value("format_version", Json()) == kWorkDirFormatVersion ? *json : Json::object();
}

}  // namespace

absl::StatusOr<WorkDir> WorkDir::Open(const std::filesystem::path& path) {
  LF_RETURN_IF_ERROR(CreateDirectories(path));
  const std::filesystem::path lock_path = path / "lock";
  UniqueFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid()) return ErrnoStatus(errno, "open", lock_path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", lock_path);
    return absl::AbortedError(
        absl::StrCat(path.string(), " is in use by another latentforge-convert"));
  }
  WorkDir dir(path, std::move(lock));
  LF_RETURN_IF_ERROR(dir.ReadState());
  return dir;
}

absl::Status WorkDir::ReadState() {
  boot_id_ = BootId();
  const absl::StatusOr<std::string> text = ReadFile(path_ / "state.json", 1 << 20);
  const Json json = text.ok() ? ParseState(*text) : Json::object();
  if (json.empty()) return absl::OkStatus();
  const absl::StatusOr<JsonObject> object = JsonObject::Create(json, "state.json");
  WorkState state;
  const auto get = [&](const char* key) { return object->StringOr(key, "").value_or(""); };
  state.job_digest = get("job_digest");
  state.source_stamp = get("source_stamp");
  state.source_digest = get("source_digest");
  state.peak_rss_bytes = object->IntOr("peak_rss_bytes", 0, INT64_MAX, 0).value_or(0);
  state.publishing = object->BoolOr("publishing_began", false).value_or(false);
  state.unsynced_factors = object->BoolOr("unsynced_factors", false).value_or(false);
  const auto phases = object->Object("phases");
  for (const Phase phase : kPhases) {
    if (!phases.ok()) break;
    const auto totals = phases->Object(PhaseName(phase));
    if (!totals.ok()) continue;
    PhaseTotals& into = state.phases[static_cast<size_t>(phase)];
    into.seconds = totals->NumberOr("seconds", 0).value_or(0);
    into.tokens = totals->IntOr("tokens", 0, INT64_MAX, 0).value_or(0);
  }
  state_ = state;
  if (get("boot_id") != boot_id_ || boot_id_.empty()) return DropUnsynced();
  return absl::OkStatus();
}

absl::Status WorkDir::DropUnsynced() {
  for (const std::filesystem::path& folder : {calibrate(), factorize()}) {
    const auto names = ListDirectory(folder);
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      const bool factors = folder == factorize() && absl::StartsWith(name, kFactors);
      const bool unsynced =
          (factors && state_.unsynced_factors) ||
          std::any_of(kUnsynced.begin(), kUnsynced.end(),
                      [&](const char* prefix) { return absl::StartsWith(name, prefix); });
      if (unsynced) LF_RETURN_IF_ERROR(RemoveTree(folder / name));
    }
  }
  state_.unsynced_factors = false;
  return absl::OkStatus();
}

absl::Status WorkDir::SaveState() const {
  Json json = {
      {"format_version", kWorkDirFormatVersion},     {"job_digest", state_.job_digest},
      {"source_stamp", state_.source_stamp},         {"source_digest", state_.source_digest},
      {"peak_rss_bytes", state_.peak_rss_bytes},     {"publishing_began", state_.publishing},
      {"unsynced_factors", state_.unsynced_factors}, {"boot_id", boot_id_}};
  for (const Phase phase : kPhases) {
    const PhaseTotals& totals = state_.phases[static_cast<size_t>(phase)];
    json["phases"][PhaseName(phase)] = {{"seconds", totals.seconds}, {"tokens", totals.tokens}};
  }
  return WriteFileAtomic(path_ / "state.json", WriteJson(json, 2) + "\n");
}

absl::Status WorkDir::Adopt(absl::string_view job_digest) {
  if (state_.job_digest != job_digest) {
    LF_RETURN_IF_ERROR(RemoveScratch());
    WorkState fresh;
    fresh.job_digest = std::string(job_digest);
    fresh.source_stamp = state_.source_stamp;
    fresh.source_digest = state_.source_digest;
    state_ = fresh;
  }
  for (const auto& folder : {calibrate(), factorize(), finetune(), evaluate()}) {
    LF_RETURN_IF_ERROR(CreateDirectories(folder));
  }
  return SaveState();
}

absl::Status WorkDir::RemoveScratch() const {
  for (const auto& folder : {calibrate(), factorize(), finetune(), evaluate()}) {
    LF_RETURN_IF_ERROR(RemoveTree(folder));
  }
  return absl::OkStatus();
}

}  // namespace latentforge::convert
