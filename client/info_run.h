// Commands that only look: model inspect, worker list, health, version.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "client/commands/command.h"
#include "client/job_run.h"

namespace latentforge::client {

struct InspectOptions {
  std::string model;
  std::string output = "table";
};

struct ListWorkersOptions {
  ServerOptions server;
  int32_t page_size = 0;
  std::string page_token;
  bool all = false;
};

struct HealthOptions {
  ServerOptions server;
  std::string service;
  std::string timeout = "5s";
};

struct VersionOptions {
  ServerOptions server;
  bool ask_server = false;
};

absl::Status RunInspect(const InspectOptions& options, const CommandContext& context);
absl::Status RunListWorkers(const ListWorkersOptions& options, const CommandContext& context);
// Unavailable (exit status 9) unless the answer is SERVING.
absl::Status RunHealth(const HealthOptions& options, const CommandContext& context);
absl::Status RunVersion(const VersionOptions& options, const CommandContext& context);

}  // namespace latentforge::client
