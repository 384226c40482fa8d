// make_artifact SOURCE FACTORS OUT separate|joint F32|BF16|F16 RANKS: writes an
// artifact whose factors lie in the safetensors file FACTORS under the names of the
// artifact. RANKS is "7,5;24,11" or "9;48". For parity tests.
#include <ATen/ATen.h>

#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/export/artifact_writer.h"
#include "worker/export/tensor_cast.h"

namespace latentforge::exporter {
namespace {

absl::StatusOr<std::vector<checkpoint::LayerRanks>> ParseRanks(absl::string_view text, bool joint) {
  std::vector<checkpoint::LayerRanks> ranks;
  for (const absl::string_view layer : absl::StrSplit(text, ';')) {
    std::vector<int64_t> values;
    for (const absl::string_view value : absl::StrSplit(layer, ',')) {
      if (!absl::SimpleAtoi(value, &values.emplace_back())) {
        return absl::InvalidArgumentError(absl::StrCat("rank \"", value, "\" is not a number"));
      }
    }
    if (values.size() != (joint ? 1u : 2u)) {
      return absl::InvalidArgumentError(absl::StrCat("layer \"", layer, "\" has wrong ranks"));
    }
    ranks.push_back(joint ? checkpoint::LayerRanks{.joint = values[0]}
                          : checkpoint::LayerRanks{.k = values[0], .v = values[1]});
  }
  return ranks;
}

// Undefined when the file has no such tensor: a dense projection.
absl::StatusOr<at::Tensor> Factor(const checkpoint::SafetensorsFile& file, int layer,
                                  absl::string_view name) {
  const std::string full = checkpoint::LayerTensor(layer, absl::StrCat("self_attn.", name));
  if (file.FindEntry(full) == nullptr) return at::Tensor();
  LF_ASSIGN_OR_RETURN(const checkpoint::TensorView view, file.Find(full));
  const absl::string_view bytes(reinterpret_cast<const char*>(view.bytes.data()),
                                view.bytes.size());
  LF_ASSIGN_OR_RETURN(const at::Tensor flat, TensorFromBytes(bytes, view.dtype(), full));
  return flat.view({view.shape()[0], view.shape()[1]});
}

absl::StatusOr<ConvertedLayer> ReadLayer(const checkpoint::SafetensorsFile& file, int layer) {
  ConvertedLayer converted;
  LF_ASSIGN_OR_RETURN(converted.k_down, Factor(file, layer, "k_down_proj.weight"));
  LF_ASSIGN_OR_RETURN(converted.v_down, Factor(file, layer, "v_down_proj.weight"));
  LF_ASSIGN_OR_RETURN(converted.kv_down, Factor(file, layer, "kv_down_proj.weight"));
  LF_ASSIGN_OR_RETURN(converted.k_up, Factor(file, layer, "k_up_proj.weight"));
  LF_ASSIGN_OR_RETURN(converted.v_up, Factor(file, layer, "v_up_proj.weight"));
  return converted;
}

absl::Status Run(char** arguments) {
  LF_ASSIGN_OR_RETURN(const checkpoint::Checkpoint source,
                      checkpoint::Checkpoint::Open(arguments[1]));
  LF_ASSIGN_OR_RETURN(const checkpoint::SafetensorsFile factors,
                      checkpoint::SafetensorsFile::Open(arguments[2]));
  ArtifactRequest request;
  request.output = arguments[3];
  request.job_id = "parity";
  request.joint = absl::string_view(arguments[4]) == "joint";
  LF_ASSIGN_OR_RETURN(request.dtype, checkpoint::ParseDType(arguments[5]));
  LF_ASSIGN_OR_RETURN(request.ranks, ParseRanks(arguments[6], request.joint));
  LF_ASSIGN_OR_RETURN(request.source_digest, source.Digest());
  request.settings_digest = Sha256Hex(arguments[6]);
  const auto report = [&]() -> absl::StatusOr<Report> {
    Report result;
    result.kv_bytes_per_token_base = checkpoint::KvBytesPerToken(source.config(), request.dtype);
    result.kv_bytes_per_token_converted = checkpoint::KvBytesPerToken(request.ranks, request.dtype);
    result.source.uri = arguments[1];
    return result;
  };
  return WriteArtifact(
             source, request, [&](int layer) { return ReadLayer(factors, layer); }, report)
      .status();
}

}  // namespace
}  // namespace latentforge::exporter

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: %s SOURCE FACTORS OUT separate|joint F32|BF16|F16 RANKS\n",
                 argv[0]);
    return 2;
  }
  const absl::Status status = latentforge::exporter::Run(argv);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
