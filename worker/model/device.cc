#include "worker/model/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <sched.h>

#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "worker/model/torch_guard.h"

namespace latentforge::model {
namespace {

// Loads LibTorch's CUDA half, which no binary of ours is linked with, and counts
// devices. Must come before anything that asks LibTorch for CUDA, as it remembers
// the first answer.
absl::StatusOr<int> CountCudaDevices() {
  // The handle is kept: LibTorch registers its kernels from it.
  static const std::string load_error = []() -> std::string {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return "";
    const char* const reason = dlerror();
    return reason == nullptr ? "unknown reason" : reason;
  }();
  if (!load_error.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA cannot be used: libtorch_cuda.so does not load: ", load_error));
  }
  return CatchTorch(
      []() -> absl::StatusOr<int> {
        const int count =
            at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
        if (count <= 0) {
          return absl::FailedPreconditionError(
              "CUDA cannot be used: libtorch_cuda.so is loaded, but no device answers (driver, "
              "permissions or CUDA_VISIBLE_DEVICES)");
        }
        return count;
      },
      "looking for CUDA devices");
}

}  // namespace

absl::StatusOr<at::Device> SelectDevice(absl::string_view text) {
  if (text == "cpu") return at::Device(at::kCPU);
  if (text.empty() || text == "auto") {
    return CountCudaDevices().ok() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  }
  absl::string_view rest = text;
  int index = 0;
  const bool cuda = absl::ConsumePrefix(&rest, "cuda");
  const bool index_ok = rest.empty() || (absl::ConsumePrefix(&rest, ":") &&
                                         absl::SimpleAtoi(rest, &index) && index >= 0);
  if (!cuda || !index_ok) {
    return absl::InvalidArgumentError(
        absl::StrCat("device is \"", text, "\", expected auto, cpu, cuda or cuda:N"));
  }
  LF_ASSIGN_OR_RETURN(const int count, CountCudaDevices());
  if (index >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("device is \"", text, "\", but there are ", count,
                     " CUDA devices (cuda:0 to cuda:", count - 1, ")"));
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

absl::StatusOr<at::ScalarType> ParseComputeType(absl::string_view text) {
  if (text.empty() || text == "bfloat16") return at::kBFloat16;
  if (text == "float32") return at::kFloat;
  return absl::InvalidArgumentError(
      absl::StrCat("computation type is \"", text, "\", expected float32 or bfloat16"));
}

absl::Status SetThreads(int threads) {
  if (threads < 0 || threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("number of threads is ", threads, ", expected 0 to 1024"));
  }
  if (threads == 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    threads = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
  }
  return CatchTorch([&] { at::set_num_threads(threads); }, "setting the number of threads");
}

}  // namespace latentforge::model
