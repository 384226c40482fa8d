// `latentforge-convert evaluate`: the perplexity of a checkpoint or an artifact.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/conversion_defaults.h"
#include "base/json.h"
#include "worker/convert/event_writer.h"
#include "worker/convert/stop_token.h"

namespace latentforge::convert {

struct EvaluateRequest {
  std::filesystem::path model;
  std::filesystem::path text;
  std::string text_field;                       // for JSON lines
  int64_t windows = kDefaultEvaluationWindows;  // 0: all that the text has
  int64_t window_length = kDefaultWindowLength;
  std::string dtype = "bfloat16";
  std::string device = "auto";
  int threads = 0;
};

// Measures and returns one JSON object: perplexity, windows, window_length, tokens,
// seconds, tokens_per_second, kv_bytes_per_token, peak_rss_bytes, and the settings.
// Prints progress and perplexity events to `events` unless it is null. Errors carry
// a reason.
absl::StatusOr<Json> Evaluate(const EvaluateRequest& request, EventWriter* events,
                              const StopToken& stop, const Clock& clock);

}  // namespace latentforge::convert
