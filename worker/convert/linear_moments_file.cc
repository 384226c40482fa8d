#include "worker/convert/linear_moments_file.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

using calibrate::LinearFisher;
using calibrate::LinearMoments;

// f(name, tensor, shape, required) for every tensor of moments, which may be const.
template <typename Moments, typename F>
void EachTensor(Moments& moments, const checkpoint::ModelConfig& config, const F& f) {
  const auto input = [&](const std::string& name, auto& of, int64_t width) {
    f(name + ".mean", of.mean, std::vector<int64_t>{width}, true);
    f(name + ".mean_abs", of.mean_abs, std::vector<int64_t>{width}, true);
    f(name + ".covariance", of.covariance, std::vector<int64_t>{width, width}, true);
  };
  const int64_t d = config.hidden_size;
  const int64_t wide = config.intermediate_size;
  input("attention", moments.attention, d);
  input("attended", moments.attended, config.q_width());
  input("mlp", moments.mlp, d);
  f("down.mean", moments.down.mean, std::vector<int64_t>{wide}, true);
  f("down.mean_abs", moments.down.mean_abs, std::vector<int64_t>{wide}, true);
  f("down.mean_square", moments.down.mean_square, std::vector<int64_t>{wide}, true);
  f("down.output_gram", moments.down.output_gram, std::vector<int64_t>{d, d}, true);
  f("down.covariance", moments.down_covariance, std::vector<int64_t>{wide, wide}, false);
}

// f(name, tensor, shape) for every tensor of the Fisher information, which may be const.
template <typename Fisher, typename F>
void EachFisher(Fisher& fisher, const checkpoint::ModelConfig& config, const F& f) {
  const auto square = [&](const char* name, auto& tensor, int64_t width) {
    f(name, tensor, std::vector<int64_t>{width, width});
  };
  square("q", fisher.q, config.q_width());
  square("k", fisher.k, config.kv_width());
  square("v", fisher.v, config.kv_width());
  square("o", fisher.o, config.hidden_size);
  square("down", fisher.down, config.hidden_size);
  if (config.gated()) f("gate", fisher.gate, std::vector<int64_t>{config.intermediate_size});
  f("up", fisher.up, std::vector<int64_t>{config.intermediate_size});
}

bool HasShape(const at::Tensor& tensor, const std::vector<int64_t>& shape) {
  return tensor.defined() && tensor.scalar_type() == at::kDouble &&
         tensor.sizes() == at::IntArrayRef(shape) && at::isfinite(tensor).all().item<bool>();
}

absl::StatusOr<LinearMoments> FromTensors(TensorMap tensors, const checkpoint::ModelConfig& config,
                                          const calibrate::LinearMomentsNeeds& needs) {
  LinearMoments moments;
  std::string wrong;
  EachTensor(moments, config,
             [&](const std::string& name, at::Tensor& target, const std::vector<int64_t>& shape,
                 bool required) {
               target = tensors[name];
               const bool right = target.defined() ? HasShape(target, shape) : !required;
               if (!right && wrong.empty()) wrong = name;
             });
  const at::Tensor count = tensors["tokens"];
  if (!HasShape(count, {1}) || !(count.item<double>() >= 1)) wrong = "tokens";
  moments.attention_rows = tensors["attention.rows"];
  const at::Tensor& rows = moments.attention_rows;
  if (rows.defined() && (rows.dim() != 2 || !HasShape(rows, {rows.size(0), config.hidden_size}))) {
    wrong = "attention.rows";
  }
  if (needs.attention_rows > 0 && !rows.defined()) wrong = "attention.rows";
  if (needs.down_covariance && !moments.down_covariance.defined()) wrong = "down.covariance";
  if (!wrong.empty()) return absl::DataLossError(absl::StrCat(wrong, " is absent or damaged"));
  const auto tokens = int64_t(count.item<double>());
  moments.attention.tokens = moments.attended.tokens = moments.mlp.tokens = tokens;
  return moments;
}

}  // namespace

absl::Status SaveLinearMoments(const std::filesystem::path& path, const LinearMoments& moments) {
  // Shapes are for reading.
  NamedTensors tensors = {{"tokens", at::full({1}, double(moments.attention.tokens), at::kDouble)}};
  EachTensor(moments, checkpoint::ModelConfig(),
             [&](const std::string& name, const at::Tensor& tensor, const std::vector<int64_t>&,
                 bool) { tensors.emplace_back(name, tensor); });
  tensors.emplace_back("attention.rows", moments.attention_rows);
  return SaveTensors(path, tensors);
}

absl::StatusOr<LinearMoments> LoadLinearMoments(const std::filesystem::path& path,
                                                const checkpoint::ModelConfig& config,
                                                const calibrate::LinearMomentsNeeds& needs) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  absl::StatusOr<LinearMoments> moments = FromTensors(std::move(tensors), config, needs);
  if (moments.ok()) return moments;
  return RemoveDamaged(path, absl::StrCat(path.string(), ": ", moments.status().message()));
}

absl::Status SaveLinearFisher(const std::filesystem::path& path, const LinearFisher& fisher) {
  NamedTensors tensors;
  EachFisher(fisher, checkpoint::ModelConfig(),
             [&](const char* name, const at::Tensor& tensor, const std::vector<int64_t>&) {
               tensors.emplace_back(name, tensor);
             });
  return SaveTensors(path, tensors);
}

absl::StatusOr<LinearFisher> LoadLinearFisher(const std::filesystem::path& path,
                                              const checkpoint::ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  LinearFisher fisher;
  bool right = true;
  EachFisher(fisher, config,
             [&](const char* name, at::Tensor& target, const std::vector<int64_t>& shape) {
               target = tensors[name];
               right = right && HasShape(target, shape);
             });
  if (right) return fisher;
  return RemoveDamaged(path, absl::StrCat(path.string(), " is damaged"));
}

}  // namespace latentforge::convert
