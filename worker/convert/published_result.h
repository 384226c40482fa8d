// What a job says of an artifact that an earlier attempt of it published.
#pragma once

#include "absl/status/statusor.h"
#include "base/json.h"
#include "worker/convert/event_writer.h"
#include "worker/export/published.h"

namespace latentforge::convert {

// The result that the attempt which published the artifact gave, or would have given, from the
// artifact's own report. DataLoss ARTIFACT_CORRUPT names what the report lacks; errors of reading
// it.
absl::StatusOr<ResultEvent> ResultOf(const exporter::PublishedArtifact& artifact);

}  // namespace latentforge::convert
