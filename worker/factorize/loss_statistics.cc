#include "worker/factorize/loss_statistics.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::factorize {

absl::Status CheckLossStatistics(const LossStatistics& statistics, int64_t n) {
  if (statistics.tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("statistics: tokens is ", statistics.tokens, ", expected at least 1"));
  }
  if (statistics.sequences < 1 || statistics.sequences > statistics.tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("statistics: sequences is ", statistics.sequences,
                     ", expected 1 to the number of tokens ", statistics.tokens));
  }
  const std::pair<const char*, const at::Tensor*> moments[] = {
      {"output", &statistics.output},
      {"output_first", &statistics.output_first},
      {"fisher", &statistics.fisher},
      {"fisher_first", &statistics.fisher_first}};
  for (const auto& [name, moment] : moments) {
    LF_RETURN_IF_ERROR(CheckTensor(*moment, {n, n}, name));
    if (n == 0) return absl::InvalidArgumentError(absl::StrCat("statistics: ", name, " is empty"));
    LF_RETURN_IF_ERROR(CheckFinite(*moment, absl::StrCat("statistics: ", name)));
    const double least = moment->diagonal().min().item<double>();
    if (least < 0) {
      return absl::InternalError(absl::StrCat("numerical failure: statistics: ", name, " has ",
                                              least,
                                              " on its diagonal, expected means of squares"));
    }
  }
  return absl::OkStatus();
}

}  // namespace latentforge::factorize
