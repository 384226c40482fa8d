#include "worker/convert/base_windows.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/convert/sealed_json.h"

namespace latentforge::convert {
namespace {

constexpr int kBaseWindowsVersion = 1;

// DataLoss when it is of something else.
absl::StatusOr<std::vector<double>> Figures(const Json& content, const std::string& key,
                                            int64_t count) {
  const absl::Status other = absl::DataLossError("it is of something else");
  if (!content.is_object() || content.value("format_version", Json()) != kBaseWindowsVersion ||
      content.value("key", Json()) != key || !content.contains("window_nll") ||
      !content["window_nll"].is_array() || int64_t(content["window_nll"].size()) != count) {
    return other;
  }
  std::vector<double> figures;
  for (const Json& value : content["window_nll"]) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) return other;
    figures.push_back(value.get<double>());
  }
  return figures;
}

}  // namespace

std::string BaseWindowsKey(const Attempt& attempt, const Inputs& inputs) {
  const evaluate::TokenWindows& windows = inputs.windows;
  const auto* ids = reinterpret_cast<const char*>(windows.ids.data());
  return Sha256Hex(absl::StrCat(kVersion, "\nwindows of the original\n", inputs.source_digest, "\n",
                                static_cast<int>(attempt.spec.dtype), "\n",
                                attempt.device.is_cuda() ? "cuda" : "cpu", "\n", windows.count, " ",
                                windows.length, "\n",
                                Sha256Hex({ids, windows.ids.size() * sizeof(int32_t)})));
}

std::vector<double> BaseWindows::Restore(const std::string& key, int64_t count) const {
  if (folder_.none()) return {};
  const std::filesystem::path path = folder_.PathOf(key, Kept::kWindows);
  const absl::StatusOr<Json> content = ReadSealedJson(path);
  const absl::StatusOr<std::vector<double>> figures =
      content.ok() ? Figures(*content, key, count) : content.status();
  if (figures.ok()) {
    folder_.MarkUsed(key, Kept::kWindows);
    return *figures;
  }
  if (absl::IsDataLoss(figures.status())) {
    folder_.Remove(key, Kept::kWindows, Severity::kWarning, figures.status().message());
  } else if (!absl::IsNotFound(figures.status())) {
    Log(Severity::kWarning, "a kept measurement cannot be read",
        {{"file", path.string()}, {"error", std::string(figures.status().message())}});
  }
  return {};
}

absl::Status BaseWindows::Keep(const std::string& key, absl::Span<const double> window_nll) const {
  if (folder_.none()) return absl::OkStatus();
  const std::vector<double> figures(window_nll.begin(), window_nll.end());
  LF_ASSIGN_OR_RETURN(const std::filesystem::path temporary,
                      folder_.Begin(key, Kept::kWindows, /*bytes=*/0));
  const absl::Status written = WriteSealedJson(
      temporary, {{"format_version", kBaseWindowsVersion}, {"key", key}, {"window_nll", figures}});
  if (written.ok()) return folder_.Finish(key, Kept::kWindows);
  LF_RETURN_IF_ERROR(folder_.Abandon(key, Kept::kWindows));
  return written;
}

}  // namespace latentforge::convert
