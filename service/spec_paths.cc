#include "service/spec_paths.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

constexpr char kOutput[] = "spec.output.uri";

}  // namespace

std::vector<SpecPath> PathsOf(const v1::JobSpec& spec) {
  std::vector<SpecPath> paths;
  const auto add = [&paths](std::string field, const std::string& uri) {
    if (!uri.empty()) paths.push_back({std::move(field), uri});
  };
  add("spec.source.uri", spec.source().uri());
  for (int i = 0; i < spec.calibration().corpora_size(); ++i)
    add(absl::StrCat("spec.calibration.corpora[", i, "].uri"), spec.calibration().corpora(i).uri());
  for (int i = 0; i < spec.healing().corpora_size(); ++i)
    add(absl::StrCat("spec.healing.corpora[", i, "].uri"), spec.healing().corpora(i).uri());
  add("spec.evaluation.corpus.uri", spec.evaluation().corpus().uri());
  add(kOutput, spec.output().uri());
  return paths;
}

bool MayHoldOutput(const PathRoots& roots, const std::filesystem::path& output) {
  return roots.empty() || (output.has_relative_path() && IsBeneathAny(output.parent_path(), roots));
}

absl::Status CheckBeneath(const v1::JobSpec& spec, const PathRoots& roots) {
  if (roots.empty()) return absl::OkStatus();
  for (const SpecPath& named : PathsOf(spec)) {
    LF_ASSIGN_OR_RETURN(const std::filesystem::path path, PathFromUri(named.uri));
    const bool fine =
        named.field == kOutput ? MayHoldOutput(roots, path) : IsBeneathAny(path, roots);
    if (!fine)
      return absl::PermissionDeniedError(absl::StrCat(named.field, ": path ", path.string(),
                                                      " is outside the allowed roots ",
                                                      DescribeRoots(roots)));
  }
  return absl::OkStatus();
}

}  // namespace latentforge::service
