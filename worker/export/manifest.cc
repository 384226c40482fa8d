#include "worker/export/manifest.h"

#include <sys/stat.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace latentforge::exporter {
namespace fs = std::filesystem;
namespace {

bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// The size of a plain file; symbolic links are not followed.
absl::StatusOr<int64_t> PlainFileSize(const fs::path& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "reading", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " is not a plain file"));
  }
  return static_cast<int64_t>(info.st_size);
}

absl::StatusOr<ManifestFile> HashFile(const fs::path& folder, const std::string& name) {
  ManifestFile file{.name = name};
  LF_ASSIGN_OR_RETURN(file.size, PlainFileSize(folder / name));
  LF_ASSIGN_OR_RETURN(file.sha256, Sha256File(folder / name));
  return file;
}

absl::StatusOr<ManifestFile> ParseFile(const Json& value) {
  LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(value, "manifest.json: files"));
  LF_RETURN_IF_ERROR(object.RejectUnknownKeys({"name", "size", "sha256"}));
  ManifestFile file;
  LF_ASSIGN_OR_RETURN(file.name, object.String("name"));
  LF_ASSIGN_OR_RETURN(file.size, object.Int("size", 0, INT64_MAX));
  LF_ASSIGN_OR_RETURN(file.sha256, object.String("sha256"));
  if (!IsPlainName(file.name)) return object.Wrong("name", "a file name without a folder");
  if (file.sha256.size() != 64) return object.Wrong("sha256", "64 hexadecimal digits");
  return file;
}

}  // namespace

absl::Status HashFolder(const fs::path& folder, Manifest& manifest) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder));
  manifest.files.clear();
  for (const std::string& name : names) {
    if (name == kManifestName) continue;
    LF_ASSIGN_OR_RETURN(manifest.files.emplace_back(), HashFile(folder, name));
  }
  return absl::OkStatus();
}

std::string ManifestToText(const Manifest& manifest) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) {
    files.push_back({{"name", file.name}, {"size", file.size}, {"sha256", file.sha256}});
  }
  const Json json = {{"format_version", kManifestFormatVersion},
                     {"job_id", manifest.job_id},
                     {"source", {{"digest", manifest.source_digest}}},
                     {"settings", {{"digest", manifest.settings_digest}}},
                     {"versions", manifest.versions},
                     {"files", files}};
  return WriteJson(json, 2) + "\n";
}

absl::StatusOr<Manifest> ParseManifest(absl::string_view text) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(json, "manifest.json"));
  // The version first: another one may have other keys.
  LF_RETURN_IF_ERROR(
      object.Int("format_version", kManifestFormatVersion, kManifestFormatVersion).status());
  LF_RETURN_IF_ERROR(object.RejectUnknownKeys(
      {"format_version", "job_id", "source", "settings", "versions", "files"}));
  Manifest manifest;
  LF_ASSIGN_OR_RETURN(manifest.job_id, object.String("job_id"));
  LF_ASSIGN_OR_RETURN(const JsonObject source, object.Object("source"));
  LF_ASSIGN_OR_RETURN(manifest.source_digest, source.String("digest"));
  LF_ASSIGN_OR_RETURN(const JsonObject settings, object.Object("settings"));
  LF_ASSIGN_OR_RETURN(manifest.settings_digest, settings.String("digest"));
  const Json* versions = object.Find("versions");
  if (versions == nullptr || !versions->is_object()) {
    return object.Wrong("versions", "an object");
  }
  manifest.versions = *versions;
  const Json* files = object.Find("files");
  if (files == nullptr || !files->is_array()) return object.Wrong("files", "an array");
  for (const Json& file : *files) {
    LF_ASSIGN_OR_RETURN(manifest.files.emplace_back(), ParseFile(file));
  }
  return manifest;
}

absl::StatusOr<Manifest> VerifyArtifact(const fs::path& folder) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(folder / kManifestName, kMaxManifestBytes));
  absl::StatusOr<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), folder.string());
  for (const ManifestFile& file : manifest->files) {
    const absl::StatusOr<ManifestFile> found = HashFile(folder, file.name);
    const std::string path = (folder / file.name).string();
    if (!found.ok()) {
      return absl::DataLossError(
          absl::StrCat("cannot verify ", path, ": ", found.status().message()));
    }
    if (found->size != file.size || found->sha256 != file.sha256) {
      return absl::DataLossError(absl::StrCat(path, " has ", found->size, " bytes and SHA-256 ",
                                              found->sha256, ", the manifest says ", file.size,
                                              " bytes and ", file.sha256));
    }
  }
  return manifest;
}

}  // namespace latentforge::exporter
