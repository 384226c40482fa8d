// The `latentforge job` commands behind their flags.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/commands/command.h"
#include "grpcpp/channel.h"

namespace latentforge::client {

// What every command that talks to a server takes.
struct ServerOptions {
  std::optional<std::string> server;  // else LATENTFORGE_SERVER, else the default
  // Else LATENTFORGE_TLS_CA, LATENTFORGE_TLS_CERT, LATENTFORGE_TLS_KEY,
  // LATENTFORGE_TLS_SERVER_NAME and LATENTFORGE_TOKEN_FILE.
  std::optional<std::string> tls_ca;
  std::optional<std::string> tls_cert;
  std::optional<std::string> tls_key;
  std::optional<std::string> tls_server_name;
  std::optional<std::string> token_file;
  std::string output = "table";
};

inline constexpr char kDefaultServer[] = "localhost:8470";

// A server as flags and environment name it.
struct ServerTarget {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
};

// The errors of OpenChannel.
absl::StatusOr<ServerTarget> FindServer(const ServerOptions& options,
                                        const CommandContext& context);

struct WaitOptions {
  std::optional<std::string> timeout;  // "90s"
};

struct SubmitOptions {
  ServerOptions server;
  SpecFlags spec;
  std::string request_id;
  bool validate_only = false;
  bool wait = false;
  WaitOptions waiting;
};

struct WatchJobOptions {
  ServerOptions server;
  std::string job;
  std::optional<int64_t> from_sequence;
  WaitOptions waiting;
};

struct ListJobsOptions {
  ServerOptions server;
  std::vector<std::string> states;
  std::vector<std::string> labels;
  std::string tenant;
  int32_t page_size = 0;
  std::string page_token;
  bool all = false;
};

struct OneJobOptions {
  ServerOptions server;
  std::string job;
};

struct LogsOptions {
  ServerOptions server;
  std::string job;
  std::optional<int32_t> attempt;  // else all
  int32_t tail = 0;
  bool follow = false;
};

absl::Status RunSubmit(const SubmitOptions& options, const CommandContext& context);
absl::Status RunWatch(const WatchJobOptions& options, const CommandContext& context);
absl::Status RunLogs(const LogsOptions& options, const CommandContext& context);
absl::Status RunListJobs(const ListJobsOptions& options, const CommandContext& context);
absl::Status RunGetJob(const OneJobOptions& options, const CommandContext& context);
absl::Status RunCancelJob(const OneJobOptions& options, const CommandContext& context);
absl::Status RunPauseJob(const OneJobOptions& options, const CommandContext& context);
absl::Status RunResumeJob(const OneJobOptions& options, const CommandContext& context);
absl::Status RunRetryJob(const OneJobOptions& options, const CommandContext& context);
// All of them, however many pages they fill.
absl::Status RunListAttempts(const OneJobOptions& options, const CommandContext& context);
absl::Status RunDeleteJob(const OneJobOptions& options, const CommandContext& context);

// "jobs/ID" of "jobs/ID" or "ID".
std::string JobName(const std::string& text);

// A random UUID, version 4.
absl::StatusOr<std::string> NewRequestId();

}  // namespace latentforge::client
