#include "checkpoint/channel_order.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {

absl::Status CheckOrder(absl::Span<const int64_t> order, absl::string_view tensor) {
  std::vector<bool> seen(order.size(), false);
  for (size_t i = 0; i < order.size(); ++i) {
    const bool inside = order[i] >= 0 && order[i] < static_cast<int64_t>(order.size());
    if (inside && !seen[static_cast<size_t>(order[i])]) {
      seen[static_cast<size_t>(order[i])] = true;
      continue;
    }
    return absl::DataLossError(absl::StrCat("tensor \"", tensor, "\" has ", order[i],
                                            " at element ", i, ", expected each of 0 to ",
                                            order.size() - 1, " once"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> ReadOrder(const TensorView& view) {
  std::vector<int64_t> order(view.bytes.size() / sizeof(int32_t));
  for (size_t i = 0; i < order.size(); ++i) {
    int32_t entry = 0;  // tensors in a file need not be aligned
    std::memcpy(&entry, view.bytes.data() + i * sizeof(int32_t), sizeof(entry));
    order[i] = entry;
  }
  LF_RETURN_IF_ERROR(CheckOrder(order, view.name()));
  return order;
}

}  // namespace latentforge::checkpoint
