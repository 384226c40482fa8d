// The only place where exceptions of LibTorch become Status values.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::model {

// Runs `body` without gradients and returns its status. An exception becomes
// ResourceExhausted when memory ran out, else Internal; the message is
// "CONTEXT: what the exception says", without LibTorch's backtrace.
absl::Status RunGuarded(absl::FunctionRef<absl::Status()> body, absl::string_view context);

namespace internal {
template <typename T>
struct GuardResult {
  using Type = absl::StatusOr<T>;
};
template <typename T>
struct GuardResult<absl::StatusOr<T>> {
  using Type = absl::StatusOr<T>;
};
}  // namespace internal

// RunGuarded for a body that returns void or Status (gives Status) or a T or
// StatusOr<T> (gives StatusOr<T>):
//   LF_ASSIGN_OR_RETURN(at::Tensor y, CatchTorch([&] { return x.mm(w); }, "layer 3"));
template <typename F>
auto CatchTorch(F&& body, absl::string_view context) {
  using R = std::invoke_result_t<F>;
  if constexpr (std::is_void_v<R>) {
    return RunGuarded(
        [&] {
          body();
          return absl::OkStatus();
        },
        context);
  } else if constexpr (std::is_same_v<R, absl::Status>) {
    return RunGuarded(body, context);
  } else {
    using Result = typename internal::GuardResult<R>::Type;
    std::optional<Result> result;
    const absl::Status status = RunGuarded(
        [&] {
          result.emplace(body());
          return absl::OkStatus();
        },
        context);
    if (!status.ok()) return Result(status);
    return *std::move(result);
  }
}

}  // namespace latentforge::model
