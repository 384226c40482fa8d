// Feeds arbitrary text to the parser of the ranks that --rank-profile takes from an artifact's
// report.json, and checks what it promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "client/rank_profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto profile = latentforge::client::ParseRankProfile(text, "report.json");
  if (!profile.ok()) {
    if (profile.status().code() != absl::StatusCode::kInvalidArgument) abort();
    return 0;
  }
  if (profile->layers().empty()) abort();
  for (int i = 0; i < profile->layers_size(); ++i) {
    const latentforge::v1::LayerRank& layer = profile->layers(i);
    if (layer.layer() != i) abort();
    const bool joint = layer.rank_kv() > 0 && layer.rank_k() == 0 && layer.rank_v() == 0;
    const bool separate = layer.rank_kv() == 0 && layer.rank_k() > 0 && layer.rank_v() > 0;
    if (!joint && !separate) abort();
  }
  return 0;
}
