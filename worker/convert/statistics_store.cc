#include "worker/convert/statistics_store.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"
#include "worker/export/safetensors_writer.h"
#include "worker/export/tensor_cast.h"
#include "worker/model/torch_guard.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using factorize::LossStatistics;

using Moment = at::Tensor LossStatistics::*;
constexpr std::array<std::pair<const char*, Moment>, 4> kMoments = {{
    {"output", &LossStatistics::output},
    {"output_first", &LossStatistics::output_first},
    {"fisher", &LossStatistics::fisher},
    {"fisher_first", &LossStatistics::fisher_first},
}};

// Symmetric [n, n] as its upper triangle, row by row, and back.
at::Tensor Pack(const at::Tensor& matrix) {
  const int64_t n = matrix.size(0);
  const at::Tensor index = at::triu_indices(n, n);
  return matrix.index({index[0], index[1]});
}

at::Tensor Unpack(const at::Tensor& packed, int64_t n) {
  const at::Tensor index = at::triu_indices(n, n);
  at::Tensor matrix = at::empty({n, n}, packed.options());
  matrix.index_put_({index[0], index[1]}, packed);
  matrix.index_put_({index[1], index[0]}, packed);
  return matrix;
}

absl::StatusOr<LossStatistics> LayerOf(const TensorMap& tensors, int64_t layer) {
  const auto find = [&](absl::string_view name) -> absl::StatusOr<at::Tensor> {
    const auto found = tensors.find(absl::StrCat(layer, ".", name));
    if (found == tensors.end()) {
      return absl::DataLossError(absl::StrCat("lacks ", layer, ".", name));
    }
    return found->second;
  };
  LF_ASSIGN_OR_RETURN(const at::Tensor counts, find("counts"));
  if (counts.scalar_type() != at::kDouble || counts.numel() != 3) {
    return absl::DataLossError(absl::StrCat(layer, ".counts is not [3] in F64"));
  }
  LossStatistics statistics;
  statistics.tokens = int64_t(counts[0].item<double>());
  statistics.sequences = int64_t(counts[1].item<double>());
  const auto n = int64_t(counts[2].item<double>());
  for (const auto& [name, moment] : kMoments) {
    LF_ASSIGN_OR_RETURN(const at::Tensor packed, find(name));
    if (packed.scalar_type() != at::kDouble || n < 1 || packed.numel() != n * (n + 1) / 2) {
      return absl::DataLossError(absl::StrCat(layer, ".", name, " is no triangle of width ", n));
    }
    statistics.*moment = Unpack(packed, n);
  }
  LF_RETURN_IF_ERROR(factorize::CheckLossStatistics(statistics, n));
  return statistics;
}

// One layer in memory at a time.
absl::Status Write(const fs::path& path, const WorkDir& work,
                   const checkpoint::ModelConfig& config) {
  const int64_t n = 2 * config.kv_width();
  std::vector<exporter::TensorDeclaration> declarations;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    declarations.push_back({absl::StrCat(layer, ".counts"), checkpoint::DType::kF64, {3}});
    for (const auto& [name, moment] : kMoments) {
      declarations.push_back(
          {absl::StrCat(layer, ".", name), checkpoint::DType::kF64, {n * (n + 1) / 2}});
    }
  }
  LF_ASSIGN_OR_RETURN(exporter::SafetensorsWriter writer,
                      exporter::SafetensorsWriter::Create(path, declarations));
  auto next = declarations.begin();
  const auto append = [&](const at::Tensor& tensor) {
    return writer.Append((next++)->name, exporter::BytesOf(tensor));
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    LF_ASSIGN_OR_RETURN(const LossStatistics statistics,
                        LoadLossStatistics(LossStatisticsPath(work, layer)));
    LF_RETURN_IF_ERROR(model::CatchTorch(
        [&]() -> absl::Status {
          LF_RETURN_IF_ERROR(append(at::tensor(
              {double(statistics.tokens), double(statistics.sequences), double(n)}, at::kDouble)));
          for (const auto& [name, moment] : kMoments) {
            LF_RETURN_IF_ERROR(append(Pack(statistics.*moment)));
          }
          return absl::OkStatus();
        },
        "packing statistics"));
  }
  return writer.Finish().status();
}

}  // namespace

std::string StatisticsKey(const JobSpec& spec, const Inputs& inputs) {
  const bool sampled = spec.labels == calibrate::FisherLabels::kSampled;
  const auto* ids = reinterpret_cast<const char*>(inputs.sequences.ids.data());
  return Sha256Hex(absl::StrCat(
      kVersion, "\n", inputs.source_digest, "\n", static_cast<int>(spec.dtype), "\n",
      sampled ? absl::StrCat("sampled ", spec.seed) : "text", "\n", inputs.sequences.length, "\n",
      Sha256Hex({ids, inputs.sequences.ids.size() * sizeof(int32_t)})));
}

absl::StatusOr<bool> StatisticsStore::Restore(const std::string& key, const WorkDir& work,
                                              int64_t layers) const {
  if (folder_.empty()) return false;
  const fs::path path = PathOf(key);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const absl::StatusOr<TensorMap> tensors = LoadTensors(path, absl::StrCat(layer, "."));
    if (!tensors.ok()) return false;  // absent, or removed as damaged
    const auto statistics = model::CatchTorch([&] { return LayerOf(*tensors, layer); }, key);
    if (!statistics.ok()) {
      Log(Severity::kWarning, "kept statistics are not usable",
          {{"file", path.string()}, {"error", std::string(statistics.status().message())}});
      LF_RETURN_IF_ERROR(RemoveTree(path));
      return false;
    }
    LF_RETURN_IF_ERROR(SaveLossStatistics(LossStatisticsPath(work, layer), *statistics));
  }
  std::error_code ignored;  // only the order of removal depends on it
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
  return true;
}

absl::Status StatisticsStore::Keep(const std::string& key, const WorkDir& work,
                                   const checkpoint::ModelConfig& config) const {
  if (folder_.empty()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CreateDirectories(folder_));
  const fs::path path = PathOf(key);
  // Of this process: another may keep the same statistics at the same time.
  const fs::path temporary = absl::StrCat(path.string(), ".", getpid(), ".tmp");
  LF_RETURN_IF_ERROR(RemoveTree(temporary));
  const absl::Status written = Write(temporary, work, config);
  if (!written.ok() || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status renamed = ErrnoStatus(errno, "rename to", path);
    LF_RETURN_IF_ERROR(RemoveTree(temporary));
    return written.ok() ? renamed : written;
  }
  RemoveOldest(path);
  return absl::OkStatus();
}

void StatisticsStore::RemoveOldest(const fs::path& keep) const {
  struct File {
    fs::file_time_type used;
    fs::path path;
    int64_t bytes;
  };
  const auto abandoned = fs::file_time_type::clock::now() - std::chrono::hours(24);
  std::vector<File> files;
  int64_t total = 0;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    if (!entry.is_regular_file(error)) continue;
    if (entry.path().extension() == ".tmp" && entry.last_write_time(error) < abandoned) {
      fs::remove(entry.path(), error);  // of a process that died
    }
    if (entry.path().extension() != ".safetensors") continue;
    files.push_back({entry.last_write_time(error), entry.path(), int64_t(entry.file_size(error))});
    total += files.back().bytes;
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.used < b.used; });
  for (const File& file : files) {
    if (total <= limit_bytes_) return;
    if (file.path == keep || !RemoveTree(file.path).ok()) continue;
    total -= file.bytes;
  }
}

}  // namespace latentforge::convert
