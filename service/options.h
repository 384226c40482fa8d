// Configuration of the server, from its flags.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/conversion_defaults.h"
#include "base/path_roots.h"
#include "service/auth/oidc_options.h"
#include "service/listen_address.h"
#include "service/log_record.h"
#include "service/tls_files.h"

namespace latentforge::service {

struct ServerOptions {
  std::vector<ListenAddress> listen;
  std::string database;                // file, or postgresql:// URI
  int64_t database_max_bytes = 0;      // 0: no limit
  PathRoots allowed_roots;             // empty: any path
  std::string metrics_address;         // "host:port"; empty: no metrics
  std::filesystem::path token_file;    // empty: none
  std::filesystem::path tenants_file;  // empty: none
  OidcOptions oidc;
  TlsFiles tls;
  bool enable_reflection = false;
  std::filesystem::path ready_file;  // empty: none

  int max_attempts = kDefaultMaxAttempts;
  bool one_machine = false;  // see StatePolicy
  absl::Duration lease_duration = absl::Seconds(30);
  absl::Duration retry_backoff = absl::Seconds(1);
  absl::Duration priority_step = absl::Hours(1);
  absl::Duration default_ttl = absl::ZeroDuration();  // of ended jobs; zero: for ever
  absl::Duration tombstone_ttl = absl::Hours(24);     // of deleted ones
  absl::Duration bookmark_interval = absl::Seconds(15);
  absl::Duration drain_delay = absl::ZeroDuration();  // between NOT_SERVING and refusing
  absl::Duration drain_grace = absl::Seconds(5);      // for calls that are under way
  int max_watches = 1000;
  int max_watches_per_tenant = 0;  // 0: as many as there may be in all
  int max_streams_per_connection = 200;
  int64_t call_memory_bytes = int64_t{1} << 30;  // of gRPC, for calls and connections
  absl::Duration handshake_timeout = absl::Seconds(10);
  absl::Duration call_deadline = absl::Minutes(1);  // of unary calls that have none
  absl::Duration watch_stall_timeout = absl::Minutes(1);
  static constexpr int64_t kLeastEventsPerJob = 1000;
  int64_t events_per_job = 10'000;
  LogLimits log_limits;  // of each attempt
  int threads = 8;
  bool json_log = false;
};

// What the command line asks for.
struct CommandLine {
  bool done = false;  // --help or --version was asked for
  int exit_code = 0;  // when done
  ServerOptions options;
};

// Parses flags; prints help, version and usage errors itself. InvalidArgument for
// combinations that are not allowed, for example a TCP address without TLS, unless it is
// loopback and --insecure was said, or one that other machines can reach without
// --allowed-root.
absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv);

}  // namespace latentforge::service
