// README.md of an artifact.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "worker/export/plots.h"
#include "worker/export/report.h"

namespace latentforge::exporter {

// The name under which a model card refers to the source: `_name_or_path` of its
// config.json when that looks like "owner/name", else the last part of its URI.
std::string BaseModelName(absl::string_view source_config, absl::string_view uri);

enum class ArtifactKind { kSeparateLatents, kJointLatent, kLowRank };

// Markdown with a YAML head: what the artifact is, its figures, how to load it and
// what it cannot do. It shows `plots`, which lie beside it.
std::string ModelCard(const Report& report, absl::string_view base_model, ArtifactKind kind,
                      const std::vector<Plot>& plots);

}  // namespace latentforge::exporter
