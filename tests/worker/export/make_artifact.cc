// make_artifact SOURCE FACTORS OUT LAYOUT F32|BF16|F16 RANKS: writes an artifact whose factors lie
// in the safetensors file FACTORS under the names of the artifact. LAYOUT is separate or joint,
// with RANKS "7,5;24,11" or "9;48"; or low_rank, with +identity and +bias as wanted, and RANKS
// "q,k,v,o,gate,up,down;…". For parity tests.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/channel_order.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/export/artifact_writer.h"
#include "worker/export/tensor_cast.h"

namespace latentforge::exporter {
namespace {

// "1,2;3,4" as lists of `count` numbers.
absl::StatusOr<std::vector<std::vector<int64_t>>> ParseRanks(absl::string_view text, size_t count) {
  std::vector<std::vector<int64_t>> layers;
  for (const absl::string_view layer : absl::StrSplit(text, ';')) {
    std::vector<int64_t>& values = layers.emplace_back();
    for (const absl::string_view value : absl::StrSplit(layer, ',')) {
      if (!absl::SimpleAtoi(value, &values.emplace_back())) {
        return absl::InvalidArgumentError(absl::StrCat("rank \"", value, "\" is not a number"));
      }
    }
    if (values.size() != count) {
      return absl::InvalidArgumentError(absl::StrCat("layer \"", layer, "\" has wrong ranks"));
    }
  }
  return layers;
}

// Sets layout and ranks of the request.
absl::Status SetRanks(absl::string_view layout, absl::string_view text, ArtifactRequest& request) {
  const std::vector<absl::string_view> parts = absl::StrSplit(layout, '+');
  const auto has = [&](absl::string_view part) {
    return std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  request.joint = has("joint");
  if (!has("low_rank")) {
    LF_ASSIGN_OR_RETURN(const auto layers, ParseRanks(text, request.joint ? 1 : 2));
    for (const std::vector<int64_t>& r : layers) {
      request.ranks.push_back(request.joint ? checkpoint::LayerRanks{.joint = r[0]}
                                            : checkpoint::LayerRanks{.k = r[0], .v = r[1]});
    }
    return absl::OkStatus();
  }
  request.low_rank =
      checkpoint::LowRankConfig{.block_identity = has("identity"), .bias = has("bias")};
  LF_ASSIGN_OR_RETURN(const auto layers, ParseRanks(text, 7));
  for (const std::vector<int64_t>& r : layers) {
    request.low_rank->ranks.push_back({r[0], r[1], r[2], r[3], r[4], r[5], r[6]});
  }
  return absl::OkStatus();
}

// Undefined when the file has no such tensor: a dense map, or no bias.
absl::StatusOr<at::Tensor> Factor(const checkpoint::SafetensorsFile& file, int layer,
                                  absl::string_view name) {
  const std::string full = checkpoint::LayerTensor(layer, name);
  if (file.FindEntry(full) == nullptr) return at::Tensor();
  LF_ASSIGN_OR_RETURN(const checkpoint::TensorView view, file.Find(full));
  const at::IntArrayRef shape(view.shape().data(), view.shape().size());
  if (view.dtype() == checkpoint::DType::kI32) {
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> order, checkpoint::ReadOrder(view));
    return at::tensor(order);
  }
  const absl::string_view bytes(reinterpret_cast<const char*>(view.bytes.data()),
                                view.bytes.size());
  LF_ASSIGN_OR_RETURN(const at::Tensor flat, TensorFromBytes(bytes, view.dtype(), full));
  return flat.view(shape);
}

absl::StatusOr<LowRankMap> ReadMap(const checkpoint::SafetensorsFile& file, int layer,
                                   const std::string& module) {
  LowRankMap map;
  LF_ASSIGN_OR_RETURN(map.order, Factor(file, layer, module + ".order"));
  LF_ASSIGN_OR_RETURN(map.down, Factor(file, layer, module + ".down.weight"));
  LF_ASSIGN_OR_RETURN(map.up, Factor(file, layer, module + ".up.weight"));
  LF_ASSIGN_OR_RETURN(map.bias, Factor(file, layer, module + ".up.bias"));
  return map;
}

absl::StatusOr<ConvertedLayer> ReadLayer(const checkpoint::SafetensorsFile& file, int layer) {
  ConvertedLayer converted;
  const std::pair<const char*, at::Tensor*> latents[] = {{"k_down_proj", &converted.k_down},
                                                         {"v_down_proj", &converted.v_down},
                                                         {"kv_down_proj", &converted.kv_down},
                                                         {"k_up_proj", &converted.k_up},
                                                         {"v_up_proj", &converted.v_up}};
  for (const auto& [name, tensor] : latents) {
    LF_ASSIGN_OR_RETURN(*tensor, Factor(file, layer, absl::StrCat("self_attn.", name, ".weight")));
  }
  LowRankLayer& maps = converted.low_rank;
  const std::pair<const char*, LowRankMap*> modules[] = {
      {"self_attn.q_proj", &maps.q}, {"self_attn.k_proj", &maps.k}, {"self_attn.v_proj", &maps.v},
      {"self_attn.o_proj", &maps.o}, {"mlp.gate_proj", &maps.gate}, {"mlp.up_proj", &maps.up},
      {"mlp.down_proj", &maps.down}};
  for (const auto& [module, map] : modules) {
    LF_ASSIGN_OR_RETURN(*map, ReadMap(file, layer, module));
  }
  return converted;
}

// Of the cache of the artifact that is asked for.
int64_t ConvertedKvBytes(const checkpoint::Checkpoint& source, const ArtifactRequest& request) {
  if (!request.low_rank) return checkpoint::KvBytesPerToken(request.ranks, request.dtype);
  checkpoint::ModelConfig target = source.config();
  target.low_rank = request.low_rank;
  return checkpoint::KvBytesPerToken(target, request.dtype);
}

absl::Status Run(char** arguments) {
  LF_ASSIGN_OR_RETURN(const checkpoint::Checkpoint source,
                      checkpoint::Checkpoint::Open(arguments[1]));
  LF_ASSIGN_OR_RETURN(const checkpoint::SafetensorsFile factors,
                      checkpoint::SafetensorsFile::Open(arguments[2]));
  ArtifactRequest request;
  request.output = arguments[3];
  request.job_id = "parity";
  LF_ASSIGN_OR_RETURN(request.dtype, checkpoint::ParseDType(arguments[5]));
  LF_RETURN_IF_ERROR(SetRanks(arguments[4], arguments[6], request));
  LF_ASSIGN_OR_RETURN(request.source_digest, source.Digest());
  request.settings_digest = Sha256Hex(arguments[6]);
  const auto report = [&]() -> absl::StatusOr<Report> {
    Report result;
    result.kv_bytes_per_token_base = checkpoint::KvBytesPerToken(source.config(), request.dtype);
    result.kv_bytes_per_token_converted = ConvertedKvBytes(source, request);
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
    std::fprintf(stderr, "usage: %s SOURCE FACTORS OUT LAYOUT F32|BF16|F16 RANKS\n", argv[0]);
    return 2;
  }
  const absl::Status status = latentforge::exporter::Run(argv);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
