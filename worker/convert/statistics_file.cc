#include "worker/convert/statistics_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "worker/export/safetensors_writer.h"
#include "worker/export/tensor_cast.h"
#include "worker/model/torch_guard.h"

namespace latentforge::convert {
namespace {

using checkpoint::SafetensorsFile;
using checkpoint::TensorEntry;
using exporter::TensorDeclaration;
using factorize::LossStatistics;

using Moment = at::Tensor LossStatistics::*;
constexpr std::array<std::pair<const char*, Moment>, 4> kMoments = {{
    {"output", &LossStatistics::output},
    {"output_first", &LossStatistics::output_first},
    {"fisher", &LossStatistics::fisher},
    {"fisher_first", &LossStatistics::fisher_first},
}};
constexpr char kDigest[] = "sha256";
constexpr int64_t kDigestBytes = 32;
constexpr size_t kReadBytes = size_t{1} << 20;

std::map<std::string, std::string> MetadataOf(const StatisticsId& id) {
  return {{"format", "pt"},
          {"format_version", absl::StrCat(kStatisticsFileVersion)},
          {"key", id.key},
          {"layers", absl::StrCat(id.layers)},
          {"width", absl::StrCat(id.width)}};
}

std::vector<TensorDeclaration> DeclarationsOf(const StatisticsId& id) {
  std::vector<TensorDeclaration> declarations;
  for (int64_t layer = 0; layer < id.layers; ++layer) {
    declarations.push_back({absl::StrCat(layer, ".counts"), checkpoint::DType::kI64, {2}});
    for (const auto& [name, moment] : kMoments) {
      declarations.push_back({absl::StrCat(layer, ".", name),
                              checkpoint::DType::kF64,
                              {id.width * (id.width + 1) / 2}});
    }
  }
  declarations.push_back({kDigest, checkpoint::DType::kU8, {kDigestBytes}});
  return declarations;
}

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

// The tensors of the declarations in turn, and a digest of their bytes.
class Writer {
 public:
  Writer(exporter::SafetensorsWriter writer, const std::vector<TensorDeclaration>& declarations)
      : writer_(std::move(writer)), next_(declarations.begin()) {}

  absl::Status Append(const at::Tensor& tensor) {
    const absl::string_view bytes = exporter::BytesOf(tensor);
    hash_.Update(bytes);
    return writer_.Append((next_++)->name, bytes);
  }

  absl::Status Finish() {
    LF_RETURN_IF_ERROR(writer_.Append(kDigest, absl::HexStringToBytes(hash_.Finish())));
    return writer_.Finish().status();
  }

 private:
  exporter::SafetensorsWriter writer_;
  std::vector<TensorDeclaration>::const_iterator next_;
  Sha256 hash_;
};

absl::Status AppendLayer(Writer& writer, const LossStatistics& statistics) {
  LF_RETURN_IF_ERROR(
      writer.Append(at::tensor({statistics.tokens, statistics.sequences}, at::kLong)));
  for (const auto& [name, moment] : kMoments) {
    LF_RETURN_IF_ERROR(writer.Append(Pack(statistics.*moment)));
  }
  return absl::OkStatus();
}

absl::Status Damaged(const SafetensorsFile& file, absl::string_view problem) {
  return absl::DataLossError(absl::StrCat(file.path().string(), " ", problem));
}

bool IsDeclared(const TensorEntry& entry, const TensorDeclaration& declaration) {
  return entry.name == declaration.name && entry.dtype == declaration.dtype &&
         absl::MakeConstSpan(entry.shape) == absl::MakeConstSpan(declaration.shape);
}

// One tensor of the file, read into memory of its own.
absl::Status Read(const SafetensorsFile& file, const std::string& name, at::Tensor& into) {
  const TensorEntry* entry = file.FindEntry(name);
  if (entry == nullptr) return Damaged(file, absl::StrCat("lacks ", name));
  return file.ReadAt(file.header().data_begin + entry->begin,
                     absl::MakeSpan(static_cast<char*>(into.mutable_data_ptr()), into.nbytes()));
}

}  // namespace

int64_t StatisticsFileBytes(const StatisticsId& id) {
  constexpr int64_t kHeaderBytesPerLayer = 512;
  const int64_t triangle = id.width * (id.width + 1) / 2;
  return id.layers * (8 * int64_t{kMoments.size()} * triangle + 16 + kHeaderBytesPerLayer) + 4096;
}

absl::Status WriteStatisticsFile(
    const std::filesystem::path& path, const StatisticsId& id,
    const std::function<absl::StatusOr<LossStatistics>(int64_t layer)>& load) {
  const std::vector<TensorDeclaration> declarations = DeclarationsOf(id);
  LF_ASSIGN_OR_RETURN(exporter::SafetensorsWriter file,
                      exporter::SafetensorsWriter::Create(path, declarations, MetadataOf(id)));
  Writer writer(std::move(file), declarations);
  for (int64_t layer = 0; layer < id.layers; ++layer) {
    LF_ASSIGN_OR_RETURN(const LossStatistics statistics, load(layer));
    LF_RETURN_IF_ERROR(model::CatchTorch(
        [&]() -> absl::Status {
          LF_RETURN_IF_ERROR(factorize::CheckLossStatistics(statistics, id.width));
          return AppendLayer(writer, statistics);
        },
        absl::StrCat("packing statistics of layer ", layer)));
  }
  return writer.Finish();
}

absl::StatusOr<StatisticsFile> StatisticsFile::Open(const std::filesystem::path& path,
                                                    const StatisticsId& id) {
  absl::StatusOr<SafetensorsFile> opened = SafetensorsFile::Open(path);
  if (absl::IsInvalidArgument(opened.status())) {
    return absl::DataLossError(opened.status().message());
  }
  LF_RETURN_IF_ERROR(opened.status());
  StatisticsFile file(*std::move(opened), id);
  LF_RETURN_IF_ERROR(file.CheckHeader());
  LF_RETURN_IF_ERROR(file.CheckDigest());
  return file;
}

absl::Status StatisticsFile::CheckHeader() const {
  const checkpoint::SafetensorsHeader& header = file_.header();
  for (const auto& [name, expected] : MetadataOf(id_)) {
    const auto found = header.metadata.find(name);
    const std::string value = found == header.metadata.end() ? "missing" : found->second;
    if (value != expected) {
      return Damaged(file_, absl::StrCat("has a ", name, " that is ", value.substr(0, 80),
                                         ", expected ", expected));
    }
  }
  const std::vector<TensorDeclaration> declarations = DeclarationsOf(id_);
  if (!std::equal(header.tensors.begin(), header.tensors.end(), declarations.begin(),
                  declarations.end(), IsDeclared)) {
    return Damaged(file_, "holds other tensors than its metadata says");
  }
  return absl::OkStatus();
}

absl::Status StatisticsFile::CheckDigest() const {
  Sha256 hash;
  std::string buffer;
  const uint64_t end = file_.size() - uint64_t{kDigestBytes};
  for (uint64_t offset = file_.header().data_begin; offset < end; offset += buffer.size()) {
    buffer.resize(std::min<uint64_t>(kReadBytes, end - offset));
    LF_RETURN_IF_ERROR(file_.ReadAt(offset, absl::MakeSpan(buffer)));
    hash.Update(buffer);
  }
  std::string digest(size_t{kDigestBytes}, '\0');
  LF_RETURN_IF_ERROR(file_.ReadAt(end, absl::MakeSpan(digest)));
  if (absl::BytesToHexString(digest) == hash.Finish()) return absl::OkStatus();
  return Damaged(file_, "has another SHA-256 than it says");
}

absl::StatusOr<LossStatistics> StatisticsFile::Layer(int64_t layer) const {
  return model::CatchTorch(
      [&]() -> absl::StatusOr<LossStatistics> {
        at::Tensor counts = at::empty({2}, at::kLong);
        LF_RETURN_IF_ERROR(Read(file_, absl::StrCat(layer, ".counts"), counts));
        LossStatistics statistics;
        statistics.tokens = counts[0].item<int64_t>();
        statistics.sequences = counts[1].item<int64_t>();
        at::Tensor packed = at::empty({id_.width * (id_.width + 1) / 2}, at::kDouble);
        for (const auto& [name, moment] : kMoments) {
          LF_RETURN_IF_ERROR(Read(file_, absl::StrCat(layer, ".", name), packed));
          statistics.*moment = Unpack(packed, id_.width);
        }
        const absl::Status checked = factorize::CheckLossStatistics(statistics, id_.width);
        if (!checked.ok()) return Damaged(file_, checked.message());
        return statistics;
      },
      absl::StrCat("unpacking statistics of layer ", layer));
}

}  // namespace latentforge::convert
