#include "worker/export/artifact_writer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/path_roots.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/channel_order.h"
#include "checkpoint/linear_maps.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/export/artifact_config.h"
#include "worker/export/embedded_files.h"
#include "worker/export/manifest.h"
#include "worker/export/model_card.h"
#include "worker/export/plots.h"
#include "worker/export/tensor_cast.h"

namespace latentforge::exporter {
namespace {

using checkpoint::Checkpoint;
using checkpoint::LayerTensor;

// Files of the source that go with its weights, where it has them.
constexpr const char* kCopiedFiles[] = {"generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "tokenizer.model",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "LICENSE",
                                        "LICENSE.txt",
                                        "LICENSE.md",
                                        "NOTICE",
                                        "NOTICE.txt"};
constexpr int64_t kMaxCopiedBytes = int64_t{256} << 20;
constexpr size_t kPieceBytes = size_t{16} << 20;  // multiple of every element size

// Sets the artifact's section in `target`, which is the source's configuration; returns the text.
absl::StatusOr<std::string> SetArtifactSection(const Checkpoint& source,
                                               const ArtifactRequest& request,
                                               checkpoint::ModelConfig& target) {
  const std::string base(checkpoint::FamilyName(source.config().family));
  if (request.low_rank.has_value()) {
    target.low_rank = request.low_rank;
    target.low_rank->base_model_type = base;
    return ArtifactConfigText(source.config_json(), *target.low_rank, request.dtype);
  }
  target.latent = checkpoint::LatentConfig{
      .base_model_type = base, .joint = request.joint, .ranks = request.ranks};
  return ArtifactConfigText(source.config_json(), *target.latent, request.dtype);
}

TensorDeclaration DeclarationOf(const checkpoint::TensorSpec& spec, checkpoint::DType dtype) {
  const bool is_order = spec.kind == checkpoint::TensorSpec::Kind::kOrder;
  return {spec.name,
          is_order ? checkpoint::DType::kI32 : dtype,
          {spec.shape.begin(), spec.shape.end()}};
}

// Tensors of the artifact in the order of the file.
std::vector<TensorDeclaration> Declare(const checkpoint::ModelConfig& target,
                                       checkpoint::DType dtype) {
  std::vector<TensorDeclaration> tensors;
  for (const checkpoint::TensorSpec& spec : checkpoint::ExpectedTensors(target)) {
    tensors.push_back(DeclarationOf(spec, dtype));
  }
  return tensors;
}

// Copies one tensor of the source in pieces and gives its pages back behind it.
absl::Status CopyTensor(const Checkpoint& source, absl::string_view from,
                        const TensorDeclaration& to, ShardedWriter& writer) {
  LF_ASSIGN_OR_RETURN(checkpoint::TensorView view, source.Tensor(from));
  const checkpoint::TensorView whole = view;
  for (size_t begin = 0; begin < whole.bytes.size(); begin += kPieceBytes) {
    view.bytes = whole.bytes.subspan(begin, kPieceBytes);
    const absl::string_view bytes(reinterpret_cast<const char*>(view.bytes.data()),
                                  view.bytes.size());
    if (view.dtype() == to.dtype) {
      LF_RETURN_IF_ERROR(writer.Append(to.name, bytes));
    } else {
      LF_ASSIGN_OR_RETURN(const at::Tensor piece, TensorFromBytes(bytes, view.dtype(), to.name));
      LF_ASSIGN_OR_RETURN(const at::Tensor cast, CastTensor(piece, to.dtype, to.name));
      LF_RETURN_IF_ERROR(writer.Append(to.name, BytesOf(cast)));
    }
    source.DropPages(view);
  }
  return absl::OkStatus();
}

absl::Status CheckGiven(const at::Tensor& tensor, const TensorDeclaration& to) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", to.name, " is not given, but its rank is below the full width"));
  }
  const bool is_order = to.dtype == checkpoint::DType::kI32;
  const bool fits = is_order ? at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false)
                             : tensor.is_floating_point();
  if (!fits || tensor.sizes() != at::IntArrayRef(to.shape)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", to.name, " is given as ", tensor.toString(), " of shape ",
        checkpoint::ShapeText({tensor.sizes().data(), tensor.sizes().size()}), ", expected ",
        is_order ? "integers" : "floating point", " of shape ", checkpoint::ShapeText(to.shape)));
  }
  return absl::OkStatus();
}

absl::Status WriteConverted(const at::Tensor& tensor, const TensorDeclaration& to,
                            ShardedWriter& writer) {
  LF_RETURN_IF_ERROR(CheckGiven(tensor, to));
  if (to.dtype != checkpoint::DType::kI32) {
    LF_ASSIGN_OR_RETURN(const at::Tensor cast, CastTensor(tensor, to.dtype, to.name));
    return writer.Append(to.name, BytesOf(cast));
  }
  const at::Tensor order = tensor.to(at::kCPU, at::kLong).contiguous();
  LF_RETURN_IF_ERROR(checkpoint::CheckOrder(
      {order.const_data_ptr<int64_t>(), static_cast<size_t>(order.numel())}, to.name));
  const at::Tensor entries = order.to(at::kInt);
  return writer.Append(to.name, BytesOf(entries));
}

// A tensor that is the source's, but for a bias that it lacks.
absl::Status CopyLayerTensor(const Checkpoint& source, int layer, absl::string_view suffix,
                             const TensorDeclaration& to, ShardedWriter& writer) {
  const absl::Status copied =
      CopyTensor(source, LayerTensor(layer, SourceSuffix(suffix)), to, writer);
  if (!absl::IsNotFound(copied)) return copied;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", to.name, " is not given, and the source has none"));
}

// Factors that nobody would read are somebody's mistake.
absl::Status CheckDenseMaps(const checkpoint::ModelConfig& target, int layer,
                            const ConvertedLayer& converted) {
  for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(target)) {
    if (checkpoint::RankOf(target, layer, map) > 0) continue;
    if (!FindConverted(converted, absl::StrCat(map.module, ".up.weight"))->defined()) continue;
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer, ": factors of ", map.module,
                                                   " are given, but its rank is 0"));
  }
  return absl::OkStatus();
}

absl::Status WriteLayer(const Checkpoint& source, const checkpoint::ModelConfig& target, int layer,
                        const LayerSource& layers, ShardedWriter& writer, checkpoint::DType dtype) {
  LF_ASSIGN_OR_RETURN(const ConvertedLayer converted, layers(layer));
  LF_RETURN_IF_ERROR(CheckDenseMaps(target, layer, converted));
  const std::string prefix = LayerTensor(layer, "");
  for (const checkpoint::TensorSpec& spec : checkpoint::LayerTensors(target, layer)) {
    const TensorDeclaration to = DeclarationOf(spec, dtype);
    const absl::string_view suffix = absl::string_view(spec.name).substr(prefix.size());
    if (const at::Tensor* tensor = FindConverted(converted, suffix); tensor != nullptr) {
      LF_RETURN_IF_ERROR(WriteConverted(*tensor, to, writer));
    } else {
      LF_RETURN_IF_ERROR(CopyLayerTensor(source, layer, suffix, to, writer));
    }
  }
  return absl::OkStatus();
}

absl::Status WriteWeights(const Checkpoint& source, const ArtifactRequest& request,
                          const checkpoint::ModelConfig& target, const LayerSource& layers,
                          StagingFolder& staging) {
  const std::vector<TensorDeclaration> tensors = Declare(target, request.dtype);
  LF_ASSIGN_OR_RETURN(ShardedWriter writer,
                      ShardedWriter::Create(staging.path(), tensors, request.shard_bytes));
  int layer = 0;
  for (const TensorDeclaration& tensor : tensors) {
    if (!absl::StartsWith(tensor.name, "model.layers.")) {
      LF_RETURN_IF_ERROR(CopyTensor(source, tensor.name, tensor, writer));
    } else if (layer < target.num_layers &&
               tensor.name == checkpoint::LayerTensors(target, layer).front().name) {
      LF_RETURN_IF_ERROR(WriteLayer(source, target, layer, layers, writer, request.dtype));
      ++layer;
    }
  }
  LF_ASSIGN_OR_RETURN(const auto shards, writer.Finish());
  for (const auto& [name, digest] : shards) staging.Note(name, digest);
  if (const std::optional<std::string> index = writer.IndexText(); index.has_value()) {
    return staging.Write("model.safetensors.index.json", *index);
  }
  return absl::OkStatus();
}

absl::Status CopySmallFiles(const Checkpoint& source, StagingFolder& staging) {
  LF_ASSIGN_OR_RETURN(const std::filesystem::path root, ResolvePath(source.dir()));
  for (const char* name : kCopiedFiles) {
    const std::filesystem::path path = source.dir() / name;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) continue;
    // A link may not bring a file from elsewhere into what may be published.
    LF_ASSIGN_OR_RETURN(const std::filesystem::path resolved, ResolveBeneath(path, {root}));
    LF_ASSIGN_OR_RETURN(const std::string contents, ReadFile(resolved, kMaxCopiedBytes));
    LF_RETURN_IF_ERROR(staging.Write(name, contents));
  }
  for (const EmbeddedFile& file : ModelCode()) {
    LF_RETURN_IF_ERROR(staging.Write(file.name, file.contents));
  }
  return absl::OkStatus();
}

// Those of the report's plots that could be drawn, as files.
absl::StatusOr<std::vector<Plot>> WritePlots(const Report& report, const PlotRenderer& render,
                                             StagingFolder& staging) {
  std::vector<Plot> written;
  if (render == nullptr) return written;
  for (Plot& plot : PlotsOf(report)) {
    const absl::StatusOr<std::string> svg = render(plot.script);
    if (!svg.ok()) continue;
    LF_RETURN_IF_ERROR(staging.Write(plot.name, *svg));
    written.push_back(std::move(plot));
  }
  return written;
}

// report.json, the plots and README.md; returns the versions for the manifest.
absl::StatusOr<Json> WriteReport(const Checkpoint& source, const ArtifactRequest& request,
                                 const ReportMaker& make_report, StagingFolder& staging) {
  LF_ASSIGN_OR_RETURN(const Report report, make_report());
  LF_ASSIGN_OR_RETURN(const Json json, ReportToJson(report));
  LF_RETURN_IF_ERROR(staging.Write("report.json", WriteJson(json, 2) + "\n"));
  const std::string base = BaseModelName(source.config_json(), report.source.uri);
  LF_ASSIGN_OR_RETURN(const std::vector<Plot> plots,
                      WritePlots(report, request.render_plot, staging));
  const ArtifactKind kind = request.low_rank ? ArtifactKind::kLowRank
                            : request.joint  ? ArtifactKind::kJointLatent
                                             : ArtifactKind::kSeparateLatents;
  LF_RETURN_IF_ERROR(staging.Write("README.md", ModelCard(report, base, kind, plots)));
  return report.versions;
}

}  // namespace

absl::StatusOr<PublishedArtifact> WriteArtifact(const Checkpoint& source,
                                                const ArtifactRequest& request,
                                                const LayerSource& layers,
                                                const ReportMaker& report) {
  checkpoint::ModelConfig target = source.config();
  LF_ASSIGN_OR_RETURN(const std::string config, SetArtifactSection(source, request, target));
  // Making a folder takes away that of another attempt, which one whose time is over may not do.
  if (request.may_publish) LF_RETURN_IF_ERROR(request.may_publish());
  LF_ASSIGN_OR_RETURN(StagingFolder staging, StagingFolder::Create(request.output, request.job_id));
  LF_RETURN_IF_ERROR(staging.Write("config.json", config));
  LF_RETURN_IF_ERROR(CopySmallFiles(source, staging));
  LF_RETURN_IF_ERROR(WriteWeights(source, request, target, layers, staging));
  Manifest manifest;
  LF_ASSIGN_OR_RETURN(manifest.versions, WriteReport(source, request, report, staging));
  manifest.job_id = request.job_id;
  manifest.source_digest = request.source_digest;
  manifest.settings_digest = request.settings_digest;
  LF_RETURN_IF_ERROR(staging.ReadBack(manifest));
  const std::string text = ManifestToText(manifest);
  LF_RETURN_IF_ERROR(WriteFileAtomic(staging.path() / kManifestName, text));
  if (request.may_publish) LF_RETURN_IF_ERROR(request.may_publish());
  LF_RETURN_IF_ERROR(staging.Publish());
  return Describe(request.output, manifest, text);
}

}  // namespace latentforge::exporter
