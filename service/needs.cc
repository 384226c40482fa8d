#include "service/needs.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/numeric/bits.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace latentforge::service {
namespace {

constexpr int kStepBits = 6;
constexpr size_t kMaxLabelBytes = 63;

// The size of a step at this size: a power of two.
int64_t StepAt(int64_t bytes) {
  const int width = static_cast<int>(absl::bit_width(static_cast<uint64_t>(bytes)));
  return int64_t{1} << std::max(0, width - 1 - kStepBits);
}

int64_t RoundedUp(int64_t bytes) {
  if (bytes <= 0) return 0;
  const int64_t step = StepAt(bytes);
  const int64_t over = bytes % step;
  const bool fits = bytes <= std::numeric_limits<int64_t>::max() - step;
  return over == 0 || !fits ? bytes : bytes + step - over;
}

int64_t RoundedDown(int64_t bytes) { return bytes <= 0 ? 0 : bytes - bytes % StepAt(bytes); }

bool IsCuda(absl::string_view device) { return absl::StartsWith(device, "cuda"); }

bool HasCuda(const v1::WorkerInfo& worker) {
  return std::any_of(worker.devices().begin(), worker.devices().end(), IsCuda);
}

// " k=v" for each.
template <typename Labels>
void AppendLabels(const Labels& labels, std::string& text) {
  for (const auto& [key, value] : labels) absl::StrAppend(&text, " ", key, "=", value);
}

bool IsLabelWord(absl::string_view word) {
  return !word.empty() && word.size() <= kMaxLabelBytes &&
         std::all_of(word.begin(), word.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || absl::StrContains("._-/", static_cast<char>(c));
         });
}

}  // namespace

std::string LabelProblem(absl::string_view key, absl::string_view value) {
  if (IsLabelWord(key) && IsLabelWord(value)) return "";
  return absl::StrCat("has \"", absl::CHexEscape(key.substr(0, kMaxLabelBytes)), "=",
                      absl::CHexEscape(value.substr(0, kMaxLabelBytes)),
                      "\", expected KEY=VALUE of 1 to 63 characters each out of "
                      "a-z A-Z 0-9 . _ - /");
}

Needs NeedsOf(const v1::JobSpec& spec, const v1::Estimate& estimate) {
  Needs needs;
  if (spec.device() != "auto") needs.device = spec.device();
  needs.memory_bytes = RoundedUp(estimate.peak_memory_bytes());
  needs.labels.insert(spec.worker_selector().begin(), spec.worker_selector().end());
  return needs;
}

std::string NeedsKey(const Needs& needs) {
  std::string key = needs.device;
  if (needs.memory_bytes > 0) absl::StrAppend(&key, " ", needs.memory_bytes);
  AppendLabels(needs.labels, key);
  return std::string(absl::StripAsciiWhitespace(key));
}

Needs ParseNeedsKey(absl::string_view key) {
  Needs needs;
  for (const absl::string_view word : absl::StrSplit(key, ' ', absl::SkipEmpty())) {
    const size_t equals = word.find('=');
    if (equals != absl::string_view::npos) {
      needs.labels[std::string(word.substr(0, equals))] = std::string(word.substr(equals + 1));
    } else if (!absl::SimpleAtoi(word, &needs.memory_bytes)) {
      needs.device = std::string(word);
    }
  }
  return needs;
}

bool HasDevice(const v1::WorkerInfo& worker, const Needs& needs) {
  if (needs.device.empty() || needs.device == "cpu") return true;
  if (needs.device == "cuda") return HasCuda(worker);
  return std::find(worker.devices().begin(), worker.devices().end(), needs.device) !=
         worker.devices().end();
}

bool HasMemory(const v1::WorkerInfo& worker, const Needs& needs) {
  return worker.memory_bytes() <= 0 || needs.memory_bytes <= worker.memory_bytes();
}

bool HasLabels(const v1::WorkerInfo& worker, const Needs& needs) {
  return std::all_of(needs.labels.begin(), needs.labels.end(), [&](const auto& label) {
    const auto found = worker.labels().find(label.first);
    return found != worker.labels().end() && found->second == label.second;
  });
}

bool Meets(const v1::WorkerInfo& worker, const Needs& needs) {
  return HasDevice(worker, needs) && HasMemory(worker, needs) && HasLabels(worker, needs);
}

int GpusTaken(const v1::WorkerInfo& worker, const Needs& needs) {
  if (needs.device.empty()) return HasCuda(worker) ? 1 : 0;
  return IsCuda(needs.device) ? 1 : 0;
}

std::string OfferKey(const v1::WorkerInfo& worker) {
  std::vector<std::string> devices(worker.devices().begin(), worker.devices().end());
  std::sort(devices.begin(), devices.end());
  std::string key = absl::StrCat(RoundedDown(worker.memory_bytes()));
  for (const std::string& device : devices) absl::StrAppend(&key, " ", device);
  const std::map<std::string, std::string> labels(worker.labels().begin(), worker.labels().end());
  AppendLabels(labels, key);
  return key;
}

}  // namespace latentforge::service
