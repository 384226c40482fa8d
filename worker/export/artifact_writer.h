// Writes a converted checkpoint as a folder that transformers loads: all of it or
// nothing. docs/artifact.md describes the format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"
#include "worker/export/converted_layer.h"
#include "worker/export/published.h"
#include "worker/export/report.h"
#include "worker/export/sharded_writer.h"
#include "worker/export/staging.h"

namespace latentforge::exporter {

// Gives layer `l`, called once for each layer in order. Its errors end the
// writing; Cancelled is the way to stop between layers.
using LayerSource = std::function<absl::StatusOr<ConvertedLayer>(int layer)>;

// Called once, after the weights are written and before report.json is, so that
// the report can hold the time of most of the writing.
using ReportMaker = std::function<absl::StatusOr<Report>()>;

// Makes an SVG of a plot's script. Where it cannot, the artifact goes without that plot.
using PlotRenderer = std::function<absl::StatusOr<std::string>(absl::string_view script)>;

struct ArtifactRequest {
  std::filesystem::path output;               // absent, or an empty folder
  std::string job_id;                         // names the folder OUTPUT.partial-JOB
  bool joint = false;                         // one latent for K and V instead of one each
  std::vector<checkpoint::LayerRanks> ranks;  // one entry a layer
  // Instead of those two: low-rank maps, format version 2. base_model_type is the source's,
  // whatever stands here.
  std::optional<checkpoint::LowRankConfig> low_rank;
  checkpoint::DType dtype = checkpoint::DType::kBF16;
  std::string source_digest;    // Checkpoint::Digest of the source
  std::string settings_digest;  // SHA-256 of the job specification
  int64_t shard_bytes = kDefaultShardBytes;
  PlotRenderer render_plot;  // none: no plots
  // Asked before the folder is made and again before it is renamed; an error ends with that. None:
  // it may.
  std::function<absl::Status()> may_publish;
};

// Writes the artifact to a StagingFolder, syncs every file, reads all back, then renames it to
// OUTPUT. On an error OUTPUT is untouched and the
// partial folder is removed. One layer's factors and one tensor are in memory at a
// time. InvalidArgument: ranks, shapes or values that do not fit; AlreadyExists:
// OUTPUT is not empty; ResourceExhausted: disk full; DataLoss: read back differs, or an order of
// channels is no permutation.
absl::StatusOr<PublishedArtifact> WriteArtifact(const checkpoint::Checkpoint& source,
                                                const ArtifactRequest& request,
                                                const LayerSource& layers,
                                                const ReportMaker& report);

}  // namespace latentforge::exporter
