// Looks at the files that a specification names.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "base/path_roots.h"
#include "checkpoint/model_config.h"
#include "latentforge/v1/spec.pb.h"
#include "service/spec_fields.h"

namespace latentforge::service {

// Adds a finding for each path that cannot be used, and puts the resolved path into the
// specification for each other one. A path outside the roots is not looked at. Not safe for
// concurrent use. Borrows both.
class PathChecks {
 public:
  // No roots: any path may be named.
  PathChecks(const PathRoots& roots, Findings& findings) : roots_(roots), findings_(findings) {}

  // The configuration of the source checkpoint; nullopt when there is none.
  std::optional<checkpoint::ModelConfig> CheckSource(v1::JobSpec& spec) const;

  // `field` is that of the corpus.
  void CheckCorpus(v1::CorpusSpec& corpus, const std::string& field) const;

  // The resolved path; empty when it cannot be named. `source` is the resolved folder of the
  // source, empty when that is wrong itself.
  std::filesystem::path CheckOutput(v1::JobSpec& spec, const std::filesystem::path& source) const;

 private:
  // The path of a URI; nullopt and a finding when it is none.
  std::optional<std::filesystem::path> Parse(const std::string& uri, absl::string_view field) const;
  // It resolved; nullopt and a finding when it lies outside the roots.
  std::optional<std::filesystem::path> Resolve(const std::filesystem::path& path,
                                               absl::string_view field) const;
  // False and a finding when a link in the folder leads outside the roots, or cannot be seen.
  bool LinksStayBeneath(const std::filesystem::path& dir, absl::string_view field) const;

  const PathRoots& roots_;
  Findings& findings_;
};

}  // namespace latentforge::service
