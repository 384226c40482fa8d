// Reads ranks that an earlier conversion saved, or that a user wrote.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// Takes {"layers": [{"rank_k": 64, "rank_v": 64}, ...]}: a report.json, or a
// RankProfile in proto3 JSON. Layers are in order; an entry's optional "layer"
// must agree. InvalidArgument names the entry.
absl::StatusOr<v1::RankProfile> ParseRankProfile(absl::string_view text, absl::string_view name);

}  // namespace latentforge::client
