#include "worker/calibrate/anchor_sums.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace latentforge::calibrate {
namespace {

// Rows of one fp32 product; longer sums lose digits before they reach fp64.
constexpr int64_t kBlockRows = 1024;

}  // namespace

AnchorSums::AnchorSums(int64_t width, at::Device device) {
  for (at::Tensor* total : {&converted_, &converted_first_, &cross_, &cross_first_}) {
    *total = at::zeros({width, width}, at::TensorOptions().dtype(at::kDouble).device(device));
  }
}

void AnchorSums::Add(const at::Tensor& original, const at::Tensor& converted, int64_t length) {
  const auto add = [](const at::Tensor& o, const at::Tensor& c, const at::Tensor& cross,
                      const at::Tensor& gram) {
    const at::Tensor rows = c.to(at::kFloat);
    gram.add_(rows.t().mm(rows));
    cross.add_(o.to(at::kFloat).t().mm(rows));
  };
  for (int64_t begin = 0; begin < converted.size(0); begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, converted.size(0) - begin);
    add(original.narrow(0, begin, count), converted.narrow(0, begin, count), cross_, converted_);
  }
  const auto first = [&](const at::Tensor& rows) { return rows.slice(0, 0, rows.size(0), length); };
  add(first(original), first(converted), cross_first_, converted_first_);
  tokens_ += converted.size(0);
  sequences_ += converted.size(0) / length;
}

absl::StatusOr<factorize::AnchorMoments> AnchorSums::Finish() && {
  if (tokens_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  const auto mean = [](const at::Tensor& sum, int64_t count) {
    return sum.div_(double(count)).to(at::kCPU);
  };
  return factorize::AnchorMoments{.tokens = tokens_,
                                  .sequences = sequences_,
                                  .converted = mean(converted_, tokens_),
                                  .converted_first = mean(converted_first_, sequences_),
                                  .cross = mean(cross_, tokens_),
                                  .cross_first = mean(cross_first_, sequences_)};
}

}  // namespace latentforge::calibrate
