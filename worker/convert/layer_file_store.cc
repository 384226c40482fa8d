#include "worker/convert/layer_file_store.h"

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "worker/convert/sealed_json.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;

constexpr int kLayerFilesVersion = 1;

fs::path FileIn(const fs::path& folder, int64_t layer) {
  return folder / absl::StrCat(layer, ".safetensors");
}

// By a link, else by a copy under another name first: `to` is whole or absent.
absl::Status LinkOrCopy(const fs::path& from, const fs::path& to) {
  LF_RETURN_IF_ERROR(RemoveTree(to));
  std::error_code error;
  fs::create_hard_link(from, to, error);
  if (!error) return absl::OkStatus();
  const fs::path part = absl::StrCat(to.string(), ".part");
  fs::copy_file(from, part, fs::copy_options::overwrite_existing, error);
  if (error) return ErrnoStatus(error.value(), "copy to", part);
  LF_RETURN_IF_ERROR(SyncPath(part));
  if (std::rename(part.c_str(), to.c_str()) != 0) return ErrnoStatus(errno, "rename to", to);
  return absl::OkStatus();
}

Json ExtentOf(const LayerFilesId& id) {
  Json extent = Json::object();
  for (const auto& [name, amount] : id.extent) extent[name] = amount;
  return extent;
}

// An index of `id`'s key and version.
bool IsIndex(const Json& index, const LayerFilesId& id) {
  return index.is_object() && index.value("format_version", Json()) == kLayerFilesVersion &&
         index.value("key", Json()) == id.key && index.contains("extent") &&
         index["extent"].is_object() && index.contains("files") && index["files"].is_array() &&
         int64_t(index["files"].size()) == id.layers;
}

bool Holds(const Json& index, const LayerFilesId& id) {
  for (const auto& [name, amount] : id.extent) {
    const Json held = index["extent"].value(name, Json());
    if (!held.is_number_integer() || held.get<int64_t>() < amount) return false;
  }
  return true;
}

// NotFound where there are none or too little of them, DataLoss where they are damaged.
absl::StatusOr<Json> ReadIndex(const fs::path& folder, const LayerFilesId& id) {
  LF_ASSIGN_OR_RETURN(Json index, ReadSealedJson(folder / kKeptIndex));
  if (!IsIndex(index, id)) {
    return absl::DataLossError(absl::StrCat(folder.string(), " is of something else"));
  }
  if (!Holds(index, id)) {
    return absl::NotFoundError(absl::StrCat(folder.string(), " holds less than is needed"));
  }
  return index;
}

absl::Status CheckFiles(const fs::path& folder, const Json& index) {
  int64_t layer = 0;
  for (const Json& expected : index["files"]) {
    const fs::path path = FileIn(folder, layer++);
    const absl::StatusOr<std::string> digest = Sha256File(path);
    if (!digest.ok() && !absl::IsNotFound(digest.status())) return digest.status();
    if (!digest.ok() || expected.value("sha256", Json()) != *digest) {
      return absl::DataLossError(absl::StrCat(path.string(), " has another SHA-256 than expected"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool LayerFileStore::Has(const LayerFilesId& id) const {
  return !folder_.none() && ReadIndex(folder_.PathOf(id.key, Kept::kLayers), id).ok();
}

absl::StatusOr<bool> LayerFileStore::Restore(const LayerFilesId& id,
                                             const PathOfLayer& path) const {
  if (folder_.none()) return false;
  const fs::path folder = folder_.PathOf(id.key, Kept::kLayers);
  const absl::StatusOr<Json> index = ReadIndex(folder, id);
  const absl::Status usable = index.ok() ? CheckFiles(folder, *index) : index.status();
  if (absl::IsDataLoss(usable)) {
    folder_.Remove(id.key, Kept::kLayers, Severity::kWarning, usable.message());
  } else if (!usable.ok() && !absl::IsNotFound(usable)) {
    Log(Severity::kWarning, "kept statistics cannot be read",
        {{"folder", folder.string()}, {"error", std::string(usable.message())}});
  }
  if (!usable.ok()) return false;
  for (int64_t layer = 0; layer < id.layers; ++layer) {
    LF_RETURN_IF_ERROR(LinkOrCopy(FileIn(folder, layer), path(layer)));
  }
  folder_.MarkUsed(id.key, Kept::kLayers);
  return true;
}

absl::Status LayerFileStore::Keep(const LayerFilesId& id, const PathOfLayer& path) const {
  if (folder_.none()) return absl::OkStatus();
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < id.layers; ++layer) {
    std::error_code error;
    bytes += int64_t(fs::file_size(path(layer), error));
    if (error) return ErrnoStatus(error.value(), "look at", path(layer));
  }
  LF_ASSIGN_OR_RETURN(const fs::path temporary, folder_.Begin(id.key, Kept::kLayers, bytes));
  const absl::Status written = [&]() -> absl::Status {
    LF_RETURN_IF_ERROR(CreateDirectories(temporary));
    Json files = Json::array();
    for (int64_t layer = 0; layer < id.layers; ++layer) {
      LF_RETURN_IF_ERROR(LinkOrCopy(path(layer), FileIn(temporary, layer)));
      LF_ASSIGN_OR_RETURN(const std::string digest, Sha256File(FileIn(temporary, layer)));
      files.push_back({{"sha256", digest}});
    }
    return WriteSealedJson(temporary / kKeptIndex, {{"format_version", kLayerFilesVersion},
                                                    {"key", id.key},
                                                    {"extent", ExtentOf(id)},
                                                    {"files", files}});
  }();
  if (written.ok()) return folder_.Finish(id.key, Kept::kLayers);
  LF_RETURN_IF_ERROR(folder_.Abandon(id.key, Kept::kLayers));
  return written;
}

}  // namespace latentforge::convert
