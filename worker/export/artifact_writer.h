// Writes a converted checkpoint as a folder that transformers loads: all of it or
// nothing. docs/artifact.md describes the format.
#pragma once

#include <ATen/core/Tensor.h>

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
#include "worker/export/report.h"
#include "worker/export/sharded_writer.h"
#include "worker/export/staging.h"

namespace latentforge::exporter {

// What is new in one layer, any floating dtype and device. D is the hidden size,
// m the key (and value) width. A projection of full rank (joint: 2m) is dense and is
// copied from the source; its tensors stay undefined. Biases come from the source.
struct ConvertedLayer {
  at::Tensor k_down;   // [r_k, D], separate
  at::Tensor v_down;   // [r_v, D], separate
  at::Tensor kv_down;  // [r, D], joint
  at::Tensor k_up;     // [m, r_k], joint: [m, r]
  at::Tensor v_up;     // [m, r_v], joint: [m, r]
  // The projections of queries and of attention's output; undefined: the source's.
  at::Tensor q;  // [heads * d, D]
  at::Tensor o;  // [D, heads * d]
};

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
  checkpoint::DType dtype = checkpoint::DType::kBF16;
  std::string source_digest;    // Checkpoint::Digest of the source
  std::string settings_digest;  // SHA-256 of the job specification
  int64_t shard_bytes = kDefaultShardBytes;
  PlotRenderer render_plot;  // none: no plots
};

struct PublishedArtifact {
  std::filesystem::path path;
  std::string manifest_sha256;
  int64_t bytes = 0;  // of all files but manifest.json
};

// What `job_id` published at `output` earlier, when it still verifies; nullopt when
// there is nothing or another job's. For an attempt that follows a crash between
// publishing and saying so. DataLoss when it does not verify.
absl::StatusOr<std::optional<PublishedArtifact>> FindPublished(const std::filesystem::path& output,
                                                               absl::string_view job_id);

// Writes the artifact to OUTPUT.partial-JOB (swept first), syncs every file, reads
// all back, then renames it to OUTPUT. On an error OUTPUT is untouched and the
// partial folder is removed. One layer's factors and one tensor are in memory at a
// time. InvalidArgument: ranks, shapes or values that do not fit; AlreadyExists:
// OUTPUT is not empty; ResourceExhausted: disk full; DataLoss: read back differs.
absl::StatusOr<PublishedArtifact> WriteArtifact(const checkpoint::Checkpoint& source,
                                                const ArtifactRequest& request,
                                                const LayerSource& layers,
                                                const ReportMaker& report);

}  // namespace latentforge::exporter
