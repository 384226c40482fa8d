// Measures perplexity of given windows, for comparison with transformers:
//   lf_evaluate_windows MODEL IDS LENGTH float32|bfloat16 [THREADS]
// IDS: int32 values. Prints one JSON object with window_nll, perplexity, seconds,
// tokens_per_second and peak_rss_bytes.
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "worker/evaluate/perplexity.h"
#include "worker/model/device.h"

namespace latentforge::evaluate {
namespace {

// From /proc: what getrusage says includes the memory of the process that started
// this one. 0 when it cannot be read.
int64_t PeakRssBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  int64_t kib = 0;
  while (status >> word && word != "VmHWM:") {
  }
  status >> kib;
  return kib * 1024;
}

absl::Status Run(const std::vector<std::string>& arguments) {
  int64_t length = 0;
  int threads = 0;
  if (arguments.size() < 5 || !absl::SimpleAtoi(arguments[3], &length) ||
      (arguments.size() > 5 && !absl::SimpleAtoi(arguments[5], &threads))) {
    return absl::InvalidArgumentError(
        "usage: lf_evaluate_windows MODEL IDS LENGTH DTYPE [THREADS]");
  }
  LF_RETURN_IF_ERROR(model::SetThreads(threads));
  LF_ASSIGN_OR_RETURN(const checkpoint::Checkpoint source,
                      checkpoint::Checkpoint::Open(arguments[1]));
  LF_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(arguments[2]));
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  LF_ASSIGN_OR_RETURN(const TokenWindows windows, CutWindows(ids, length, 0));
  PerplexityOptions options;
  LF_ASSIGN_OR_RETURN(options.dtype, model::ParseComputeType(arguments[4]));

  const absl::Time start = absl::Now();
  LF_ASSIGN_OR_RETURN(const PerplexityResult result, EvaluatePerplexity(source, windows, options));
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::cout << WriteJson(Json{{"window_nll", result.window_nll},
                              {"perplexity", result.perplexity},
                              {"seconds", seconds},
                              {"tokens_per_second", static_cast<double>(result.tokens) / seconds},
                              {"peak_rss_bytes", PeakRssBytes()}})
            << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace latentforge::evaluate

int main(int argc, char** argv) {
  const absl::Status status =
      latentforge::evaluate::Run(std::vector<std::string>(argv, argv + argc));
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
