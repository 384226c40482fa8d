// What commands print on standard output.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "latentforge/v1/job_service.pb.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::client {

enum class OutputFormat { kTable, kJson, kJsonLines, kName };

// "table", "json", "jsonl" or "name". InvalidArgument lists them.
absl::StatusOr<OutputFormat> ParseOutputFormat(absl::string_view text);

// Proto3 JSON with a line end: indented, or on one line.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message, bool one_line);

// Jobs as a table, as {"jobs":[...],"nextPageToken"}, as a line each, or as names.
absl::StatusOr<std::string> RenderJobs(const v1::ListJobsResponse& jobs, OutputFormat format);

// One job: its fields line by line, its JSON, or its name.
absl::StatusOr<std::string> RenderJob(const v1::Job& job, OutputFormat format);

absl::StatusOr<std::string> RenderAttempts(const v1::ListAttemptsResponse& attempts,
                                           OutputFormat format);
absl::StatusOr<std::string> RenderWorkers(const v1::ListWorkersResponse& workers,
                                          OutputFormat format);

// What a conversion is expected to need.
absl::StatusOr<std::string> RenderEstimate(const v1::CreateJobResponse& response,
                                           OutputFormat format);

// Writes to standard output. An error when it cannot be written in full, as on a full
// disk; where its reader has gone, SIGPIPE ends this process, as it ends others.
absl::Status PrintOutput(absl::string_view text);

}  // namespace latentforge::client
