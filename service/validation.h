// Checks a specification against the files that it names.
#pragma once

#include <filesystem>
#include <vector>

#include "checkpoint/model_config.h"
#include "service/spec_checker.h"
#include "service/spec_fields.h"

namespace latentforge::service {

// Opens the source checkpoint and looks at corpora and output. Paths must lie
// beneath the allowed roots, symbolic links resolved; no roots mean any path. The
// specification it returns names the resolved paths, so that what was checked is
// what a worker opens. Immutable: safe for concurrent use.
class FileSpecChecker final : public SpecChecker {
 public:
  explicit FileSpecChecker(std::vector<std::filesystem::path> allowed_roots)
      : allowed_roots_(std::move(allowed_roots)) {}

  // INVALID_ARGUMENT with a violation for each wrong field; UNIMPLEMENTED
  // METHOD_NOT_SUPPORTED.
  absl::StatusOr<CheckedSpec> Check(const v1::JobSpec& spec) const override;

 private:
  // The resolved path, or nullopt and a finding.
  std::optional<std::filesystem::path> Resolve(const std::string& uri, absl::string_view field,
                                               Findings& findings) const;
  std::optional<checkpoint::ModelConfig> CheckSource(v1::JobSpec& spec, Findings& findings) const;
  void CheckCorpusFile(v1::CorpusSpec& corpus, const std::string& field, Findings& findings) const;
  std::filesystem::path CheckOutput(v1::JobSpec& spec, const std::filesystem::path& source,
                                    Findings& findings) const;

  const std::vector<std::filesystem::path> allowed_roots_;
};

// Findings for ranks that the model does not allow or that exceed the budget.
void CheckRankProfile(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                      Findings& findings);

// A finding where the budget of a specification with defaults leaves a latent less than its
// least rank: one rank multiple. None for a rank profile.
void CheckRanksFit(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                   Findings& findings);

}  // namespace latentforge::service
