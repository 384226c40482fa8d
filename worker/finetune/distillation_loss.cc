#include "worker/finetune/distillation_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/model/layer_ops.h"
#include "worker/model/tensor_rows.h"
#include "worker/model/torch_guard.h"

namespace latentforge::finetune {
namespace {

// The sum over rows of KL(softmax(target) || softmax(logits)); the logits become q - p.
double Diverge(const at::Tensor& target, const at::Tensor& logits, const at::Tensor& log_total) {
  const at::Tensor target_total = model::LogSumExp(target).to(at::kFloat);
  if (model::HasRowKernels(logits)) {
    const at::Tensor divergence = at::empty({logits.size(0)}, at::kDouble);
    model::WithElementType(logits, [&]<typename T>(T) {
      model::DivergenceRows<T>(model::RowsOf<const T>(target), model::RowsOf<T>(logits),
                               target_total.const_data_ptr<float>(),
                               log_total.const_data_ptr<float>(),
                               divergence.mutable_data_ptr<double>());
    });
    return divergence.sum().item<double>();
  }
  const at::Tensor a = target.to(at::kFloat) - target_total.unsqueeze(1);
  const at::Tensor b = logits.to(at::kFloat) - log_total.unsqueeze(1);
  const at::Tensor p = a.exp();
  logits.copy_(b.exp() - p);
  return (p * (a - b)).sum(at::kDouble).item<double>();
}

// The sum over labelled rows of -log softmax(logits)[label], and how many they are.
std::pair<double, int64_t> LabelNll(const at::Tensor& logits, const at::Tensor& log_total,
                                    const at::Tensor& labels) {
  const at::Tensor rows = labels.ge(0).nonzero().squeeze(1);
  const at::Tensor chosen =
      logits.index({rows.to(logits.device()), labels.index_select(0, rows).to(logits.device())});
  const at::Tensor nll =
      log_total.index_select(0, rows.to(logits.device())) - chosen.to(at::kFloat);
  return {nll.sum(at::kDouble).item<double>(), rows.size(0)};
}

absl::StatusOr<DistillationLoss> Sum(const at::Tensor& teacher, const at::Tensor& student,
                                     const at::Tensor& head, const at::Tensor& labels,
                                     const DistillationOptions& options) {
  const int64_t rows = student.size(0);
  const int64_t most = std::max<int64_t>(1, options.block_elements / head.size(0));
  // Blocks of one size: a small last one would read the whole head for little.
  const int64_t blocks = std::max<int64_t>(1, (rows + most - 1) / most);
  const int64_t step = (rows + blocks - 1) / blocks;
  DistillationLoss loss;
  if (options.gradient) loss.gradient = at::empty_like(student);
  int64_t labelled = 0;
  for (int64_t begin = 0; begin < rows; begin += step) {
    if (options.stop && options.stop()) return absl::CancelledError("distillation was stopped");
    const int64_t count = std::min(step, rows - begin);
    // Both models at once, because packing the head costs as much as the product of few rows.
    const at::Tensor both =
        at::cat({teacher.narrow(0, begin, count), student.narrow(0, begin, count)}).mm(head.t());
    const at::Tensor target = both.narrow(0, 0, count);
    const at::Tensor logits = both.narrow(0, count, count);
    const at::Tensor log_total = model::LogSumExp(logits).to(at::kFloat);
    const auto [nll, counted] = LabelNll(logits, log_total, labels.narrow(0, begin, count));
    loss.nll += nll;
    labelled += counted;
    loss.divergence += Diverge(target, logits, log_total);
    if (options.gradient) {
      at::Tensor part = loss.gradient.narrow(0, begin, count);
      at::mm_out(part, logits, head);
    }
  }
  loss.divergence /= static_cast<double>(rows);
  if (labelled > 0) loss.nll /= static_cast<double>(labelled);
  if (options.gradient) loss.gradient.div_(static_cast<double>(rows));
  if (!std::isfinite(loss.divergence)) {
    return absl::DataLossError(absl::StrCat("the loss is ", loss.divergence));
  }
  return loss;
}

}  // namespace

absl::StatusOr<DistillationLoss> Distill(const at::Tensor& teacher, const at::Tensor& student,
                                         const at::Tensor& head, const at::Tensor& labels,
                                         const DistillationOptions& options) {
  return model::CatchTorch([&] { return Sum(teacher, student, head, labels, options); },
                           "distillation");
}

}  // namespace latentforge::finetune
