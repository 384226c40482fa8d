#include "checkpoint/folder.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/path_roots.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxTextBytes = size_t{64} << 20;
constexpr size_t kMaxShards = 10000;

absl::Status CheckPlainName(absl::string_view name) {
  const bool plain = !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
                     std::all_of(name.begin(), name.end(), [](char c) {
                       const auto byte = static_cast<unsigned char>(c);
                       return byte >= 0x20 && byte != 0x7f && byte != '/' && byte != '\\';
                     });
  if (plain) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("file name ",
                                                 WriteJson(Json(std::string(name.substr(0, 300)))),
                                                 ", expected a plain file name"));
}

// The folder of the Hugging Face cache into which a snapshot's links lead; empty
// when `dir` is no snapshot. `dir` has no symbolic links.
fs::path CacheBlobs(const fs::path& dir) {
  const fs::path snapshots = dir.parent_path();
  if (snapshots.filename() != "snapshots") return {};
  return snapshots.parent_path() / "blobs";
}

}  // namespace

absl::StatusOr<fs::path> ResolveInFolder(const fs::path& dir, absl::string_view name) {
  LF_RETURN_IF_ERROR(CheckPlainName(name));
  const fs::path path = dir / std::string(name);
  std::error_code error;
  const fs::path real_dir = fs::canonical(dir, error);
  if (error) return ErrnoStatus(error.value(), "opening folder", dir);
  if (!fs::is_directory(real_dir, error)) {
    return absl::NotFoundError(
        absl::StrCat(dir.string(), " is a file, expected the folder of a checkpoint"));
  }
  const fs::path real = fs::canonical(path, error);
  if (error) return ErrnoStatus(error.value(), "opening", path);
  const fs::path blobs = CacheBlobs(real_dir);
  if (!IsBeneath(real, real_dir) && (blobs.empty() || !IsBeneath(real, blobs))) {
    return absl::PermissionDeniedError(
        absl::StrCat(path.string(), " leads to ", real.string(),
                     ", out of its folder, expected a file of the folder itself (or a link of a "
                     "Hugging Face cache): copy the linked files into it (cp -rL)"));
  }
  const bool regular = fs::is_regular_file(real, error);
  if (error) return ErrnoStatus(error.value(), "looking at", path);
  if (!regular) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " is no regular file"));
  }
  return real;
}

absl::StatusOr<std::string> ReadTextInFolder(const fs::path& dir, absl::string_view name) {
  LF_ASSIGN_OR_RETURN(const fs::path path, ResolveInFolder(dir, name));
  return ReadFile(path, kMaxTextBytes);
}

absl::StatusOr<ShardList> ParseShardIndex(absl::string_view json_text) {
  absl::StatusOr<Json> json = ParseJson(json_text, {.max_depth = 16, .max_bytes = kMaxTextBytes});
  if (!json.ok()) return Annotate(json.status(), kIndexFile);
  LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(*json, kIndexFile));
  LF_RETURN_IF_ERROR(object.Object("weight_map").status());
  ShardList list;
  std::set<std::string> files;
  for (const auto& [tensor, file] : object.Find("weight_map")->items()) {
    if (!file.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexFile, ": the file of tensor \"", tensor.substr(0, 200), "\" is ",
                       WriteJson(file).substr(0, 80), ", expected a string"));
    }
    const std::string name = file.get<std::string>();
    LF_RETURN_IF_ERROR(Annotate(CheckPlainName(name), absl::StrCat(kIndexFile, ": tensor \"",
                                                                   tensor.substr(0, 200), "\"")));
    if (!absl::EndsWith(name, ".safetensors")) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexFile, " names the file ", name, ", expected the ending .safetensors"));
    }
    list.tensors.emplace(tensor, name);
    files.insert(name);
  }
  if (files.empty() || files.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat(kIndexFile, " names ", files.size(), " files, expected 1 to ", kMaxShards));
  }
  list.files.assign(files.begin(), files.end());
  return list;
}

absl::StatusOr<ShardList> ListShards(const fs::path& dir) {
  const absl::Status single = ResolveInFolder(dir, kSingleFile).status();
  if (single.ok()) return ShardList{{kSingleFile}, {}};
  if (!absl::IsNotFound(single)) return single;
  absl::StatusOr<std::string> text = ReadTextInFolder(dir, kIndexFile);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        absl::StrCat(dir.string(), " has neither ", kSingleFile, " nor ", kIndexFile));
  }
  if (!text.ok()) return text.status();
  return ParseShardIndex(*text);
}

}  // namespace latentforge::checkpoint
