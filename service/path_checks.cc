#include "service/path_checks.h"

#include <limits.h>
#include <unistd.h>

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/open_error.h"
#include "checkpoint/tokenizer_file.h"
#include "service/spec_paths.h"
#include "service/text_check.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

constexpr char kPathNotAllowed[] = "PATH_NOT_ALLOWED";

const char* ReasonOfTokenizer(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsPermissionDenied(status) ? "SOURCE_NOT_READABLE"
                                                                      : "MALFORMED_TOKENIZER";
}

// What no file system of Linux takes; empty when there is none.
std::string LengthProblem(const fs::path& path) {
  if (path.native().size() >= PATH_MAX)
    return absl::StrCat("has a path of ", path.native().size(), " bytes, expected at most ",
                        PATH_MAX - 1);
  for (const fs::path& name : path) {
    if (name.native().size() > NAME_MAX)
      return absl::StrCat("has a name of ", name.native().size(), " bytes in its path, \"",
                          name.native().substr(0, 20), "...\", expected at most ", NAME_MAX);
  }
  return "";
}

bool IsDangling(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(fs::symlink_status(path, error)) && !fs::exists(path, error);
}

// Why no folder can be made at `path`: something on the way to it, or there, is
// neither a folder nor absent. Empty when nothing is.
std::string ObstacleTo(const fs::path& path) {
  std::error_code error;
  for (fs::path part = path; part.has_relative_path(); part = part.parent_path()) {
    const std::string place =
        part == path ? path.string()
                     : absl::StrCat(path.string(), " lies beneath ", part.string(), ", which");
    if (IsDangling(part))
      return absl::StrCat(place, " is a symbolic link to ", fs::read_symlink(part, error).string(),
                          ", which does not exist");
    const fs::file_status status = fs::status(part, error);
    if (!fs::exists(status)) continue;
    return fs::is_directory(status) ? "" : absl::StrCat(place, " is not a folder");
  }
  return "";
}

// Why an artifact of `source` does not belong at `output`; empty when it may go
// there. An empty `source` is one that is wrong itself.
std::string OverlapOf(const fs::path& output, const fs::path& source) {
  const auto text = [&](const char* relation) {
    return absl::StrCat(output.string(), relation, source.string(), ", expected a folder apart");
  };
  if (source.empty()) return "";
  if (output == source) return text(" is the same folder as the source ");
  if (IsBeneath(output, source)) return text(" lies inside the source ");
  if (IsBeneath(source, output)) return text(" holds the source ");
  return "";
}

}  // namespace

std::optional<fs::path> PathChecks::Parse(const std::string& uri, absl::string_view field) const {
  absl::StatusOr<fs::path> path = PathFromUri(uri);
  if (!path.ok()) {
    findings_.Add("BAD_URI", field, path.status().message());
    return std::nullopt;
  }
  if (const std::string problem = LengthProblem(*path); !problem.empty()) {
    findings_.Add(kInvalidField, field, problem);
    return std::nullopt;
  }
  return *std::move(path);
}

std::optional<fs::path> PathChecks::Resolve(const fs::path& path, absl::string_view field) const {
  absl::StatusOr<fs::path> resolved = ResolveBeneath(path, roots_);
  if (resolved.ok()) return *std::move(resolved);
  findings_.Add(kPathNotAllowed, field, resolved.status().message());
  return std::nullopt;
}

bool PathChecks::LinksStayBeneath(const fs::path& dir, absl::string_view field) const {
  if (roots_.empty()) return true;
  std::error_code error;
  for (fs::directory_iterator entry(dir, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code gone;
    if (entry->is_symlink(gone) && !Resolve(entry->path(), field).has_value()) return false;
  }
  // One that is absent, or no folder, is found out by who opens it.
  if (!error || error == std::errc::no_such_file_or_directory ||
      error == std::errc::not_a_directory)
    return true;
  findings_.Add("SOURCE_NOT_READABLE", field,
                absl::StrCat(dir.string(), " cannot be listed: ", error.message(),
                             ", expected a folder whose links can be looked at"));
  return false;
}

std::optional<checkpoint::ModelConfig> PathChecks::CheckSource(v1::JobSpec& spec) const {
  constexpr char kField[] = "spec.source.uri";
  const std::optional<fs::path> named = Parse(spec.source().uri(), kField);
  if (!named.has_value()) return std::nullopt;
  const std::optional<fs::path> dir = Resolve(*named, kField);
  if (!dir.has_value() || !LinksStayBeneath(*dir, kField)) return std::nullopt;
  const absl::StatusOr<checkpoint::Checkpoint> opened = checkpoint::Checkpoint::Open(*dir);
  if (!opened.ok()) {
    findings_.Add(checkpoint::ReasonOfOpenError(opened.status()), kField,
                  opened.status().message());
    return std::nullopt;
  }
  if (opened->config().converted()) {
    findings_.Add("ALREADY_CONVERTED", kField,
                  absl::StrCat(dir->string(), " is already converted by latentforge"));
    return std::nullopt;
  }
  // Beside other findings: the rest of the checkpoint is fine.
  if (const absl::Status tokenizer = checkpoint::CheckTokenizerFile(*dir); !tokenizer.ok())
    findings_.Add(ReasonOfTokenizer(tokenizer), kField, tokenizer.message());
  spec.mutable_source()->set_uri(UriFromPath(*dir));
  return opened->config();
}

void PathChecks::CheckCorpus(v1::CorpusSpec& corpus, const std::string& field) const {
  const std::string uri = field + ".uri";
  const std::optional<fs::path> named = Parse(corpus.uri(), uri);
  if (!named.has_value()) return;
  const std::optional<fs::path> path = Resolve(*named, uri);
  if (!path.has_value()) return;
  std::error_code error;
  const bool regular = fs::is_regular_file(*path, error);
  if (!regular || access(path->c_str(), R_OK) != 0) {
    const absl::string_view problem = !fs::exists(*path, error) ? "does not exist"
                                      : !regular                ? "is not a regular file"
                                                                : "cannot be read";
    findings_.Add("CORPUS_NOT_READABLE", uri, absl::StrCat(path->string(), " ", problem));
    return;
  }
  if (fs::file_size(*path, error) == 0 && !error)
    findings_.Add("MALFORMED_CORPUS", uri, absl::StrCat(path->string(), " is empty"));
  CheckIsText(*path, uri, findings_);
  corpus.set_uri(UriFromPath(*path));
}

fs::path PathChecks::CheckOutput(v1::JobSpec& spec, const fs::path& source) const {
  constexpr char kField[] = "spec.output.uri";
  const std::optional<fs::path> named = Parse(spec.output().uri(), kField);
  if (!named.has_value()) return {};
  const std::optional<fs::path> path = Resolve(*named, kField);
  if (!path.has_value()) return {};
  std::error_code error;
  // A link to nothing is as good as a name, but for the kernel, which makes no folder there. A ".."
  // behind one is taken back by name: what is found so may lie outside the roots.
  const fs::path by_name = fs::weakly_canonical(*named, error);
  const bool open = !error && (roots_.empty() || IsBeneathAny(by_name, roots_));
  const fs::path& found = open ? by_name : *path;
  if (!MayHoldOutput(roots_, *path)) {
    findings_.Add(kPathNotAllowed, kField,
                  absl::StrCat("path ", named->string(), " is one of the allowed roots ",
                               DescribeRoots(roots_), ", expected a folder in it"));
  } else if (const std::string overlap = OverlapOf(*path, source); !overlap.empty()) {
    findings_.Add("OUTPUT_OVERLAPS_SOURCE", kField, overlap);
  } else if (const std::string obstacle = ObstacleTo(found); !obstacle.empty()) {
    findings_.Add("OUTPUT_NOT_WRITABLE", kField, obstacle);
  } else if (fs::exists(*path, error)) {
    const bool empty = fs::is_empty(*path, error);
    if (error)
      findings_.Add("OUTPUT_NOT_EMPTY", kField,
                    absl::StrCat(path->string(), " cannot be read: ", error.message()));
    else if (!empty)
      findings_.Add("OUTPUT_NOT_EMPTY", kField,
                    absl::StrCat(path->string(), " exists and is not empty"));
  }
  spec.mutable_output()->set_uri(UriFromPath(*path));
  return *path;
}

}  // namespace latentforge::service
