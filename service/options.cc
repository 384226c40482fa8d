#include "service/options.h"

#include <algorithm>
#include <optional>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/command_line.h"
#include "base/status_macros.h"
#include "base/version.h"

namespace latentforge::service {
namespace {

// Flags as text, before they are understood.
struct Flags {
  std::vector<std::string> listen = {"127.0.0.1:8470"};
  std::vector<std::string> allowed_roots;
  bool insecure = false;
  std::optional<int> watches_per_tenant;
  absl::Duration drain_delay = absl::InfiniteDuration();  // infinite: not given
};

constexpr absl::Duration kDay = absl::Hours(24);
constexpr absl::Duration kTenYears = absl::Hours(24 * 3653);

// What a flag of a duration accepts.
CLI::Validator DurationUpTo(absl::Duration most) {
  const auto check = [most](const std::string& text) -> std::string {
    absl::Duration parsed;
    if (absl::ParseDuration(text, &parsed) && parsed >= absl::ZeroDuration() && parsed <= most)
      return "";
    return absl::StrCat("is ", text, ", expected 0s to ", absl::FormatDuration(most),
                        ", as in 30s");
  };
  return CLI::Validator(check, "DURATION");
}

void AddDuration(CLI::App& app, const std::string& name, absl::Duration& value,
                 const std::string& help, absl::Duration most = kDay) {
  const auto assign = [&value](const std::string& text) { absl::ParseDuration(text, &value); };
  app.add_option_function<std::string>(name, assign, help)
      ->check(DurationUpTo(most))
      ->default_str(value == absl::InfiniteDuration() ? "" : absl::FormatDuration(value));
}

// The flags of an OpenID Connect provider.
void AddOidcFlags(CLI::App& app, OidcOptions& oidc) {
  app.add_option("--oidc-issuer", oidc.issuer,
                 "Accept JSON Web Tokens (RS256, ES256) of this issuer, a URL");
  app.add_option("--oidc-audience", oidc.audience, "Audience that those tokens must name");
  app.add_option("--oidc-jwks", oidc.jwks,
                 "File or https: URL of the issuer's keys; looked at every 5 minutes, and when a "
                 "token has a new key");
  app.add_option("--oidc-ca", oidc.ca_file,
                 "Certificates (PEM) that vouch for that URL (default: the system's)");
  app.add_option("--oidc-tenant-claim", oidc.tenant_claim,
                 "Claim that holds the tenant; a dot leads into an object")
      ->capture_default_str();
  app.add_option("--oidc-role-claim", oidc.role_claim,
                 "Claim that holds the role, or a list of them: user, worker, admin")
      ->capture_default_str();
}

// What is bounded, so that no caller and no job takes all.
void AddLimitFlags(CLI::App& app, Flags& flags, ServerOptions& options) {
  app.add_option("--max-watches", options.max_watches, "Most open watches")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--max-watches-per-tenant", flags.watches_per_tenant,
                 "Most of one tenant; 0: as many as --max-watches allows")
      ->check(CLI::Range(0, 1'000'000))
      ->default_str("a quarter of --max-watches where callers have credentials, else 0");
  AddDuration(app, "--watch-stall-timeout", options.watch_stall_timeout,
              "A watch, or a reading of logs, whose caller reads nothing for this long is closed");
  app.add_option("--max-streams-per-connection", options.max_streams_per_connection,
                 "Calls and watches that a client may have open on one connection")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--call-memory-bytes", options.call_memory_bytes,
                 "Memory for connections and calls; above it reading pauses and idle connections "
                 "are closed")
      ->check(CLI::Range(int64_t{64} << 20, int64_t{1} << 40))
      ->capture_default_str();
  AddDuration(app, "--handshake-timeout", options.handshake_timeout,
              "A connection that has not finished TLS and HTTP/2's greeting by then is closed");
  AddDuration(
      app, "--call-deadline", options.call_deadline,
      "A call without a deadline of its own fails when the server has not come to it by then");
  app.add_option("--events-per-job", options.events_per_job,
                 "Events that are kept of a job, about; above it the oldest go")
      ->check(CLI::Range(ServerOptions::kLeastEventsPerJob, int64_t{1'000'000'000}))
      ->capture_default_str();
  app.add_option("--log-lines-per-attempt", options.log_limits.lines,
                 "Last lines that are kept of each attempt's log")
      ->check(CLI::Range(int64_t{1}, int64_t{10'000'000}))
      ->capture_default_str();
  app.add_option("--log-bytes-per-attempt", options.log_limits.bytes,
                 "Bytes of text that are kept of it at most")
      ->check(CLI::Range(int64_t{4096}, int64_t{1} << 40))
      ->capture_default_str();
}

void AddFlags(CLI::App& app, Flags& flags, ServerOptions& options) {
  app.set_version_flag("--version", std::string("latentforge-server ") + kVersion);
  app.add_option("--listen", flags.listen,
                 "Address to serve on: host:port or unix:/path; repeatable")
      ->capture_default_str();
  app.add_flag("--insecure", flags.insecure,
               "Serve host:port of this machine in the clear; without --token-file and "
               "--oidc-issuer every process of this machine may do everything");
  app.add_option("--tls-cert", options.tls.certificate,
                 "Certificate (PEM) for host:port, read again when it changes");
  app.add_option("--tls-key", options.tls.key, "Its private key (PEM)");
  app.add_option("--tls-client-ca", options.tls.client_ca,
                 "Certificates (PEM) that vouch for clients: a client may show one, whose URI or "
                 "common name the token file lists");
  app.add_option("--database", options.database,
                 "Where jobs are kept: a SQLite file, made when absent, or a PostgreSQL database, "
                 "postgresql://user@host:port/name, which several servers may share (its password: "
                 "?passfile=FILE, PGPASSFILE or PGPASSWORD)")
      ->required();
  app.add_option("--database-max-bytes", options.database_max_bytes,
                 "Refuse work when the SQLite file reaches this size; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--allowed-root", flags.allowed_roots,
                 "Folder beneath which models, corpora and outputs must lie; repeatable");
  app.add_option("--token-file", options.token_file,
                 "Who may call: one line CREDENTIAL SUBJECT TENANT ROLE each; see latentforge auth "
                 "new-token. Read again when it changes");
  AddOidcFlags(app, options.oidc);
  app.add_option("--tenants", options.tenants_file,
                 "JSON file with share, limits and roots of each tenant (docs/operations.md). Read "
                 "again when it changes");
  app.add_option("--metrics-address", options.metrics_address,
                 "host:port that serves /metrics to Prometheus; none by default");
  app.add_flag("--enable-reflection", options.enable_reflection,
               "Let clients such as grpcurl ask for the API's description");
  app.add_option("--ready-file", options.ready_file,
                 "File that gets one line for each address once the server serves");
  app.add_option("--max-attempts", options.max_attempts, "Most attempts of a job")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_flag("--one-machine", options.one_machine,
               "Every worker is on this machine: a full disk fails a job at once, for no other "
               "worker has more room");
  AddLimitFlags(app, flags, options);
  app.add_option("--threads", options.threads, "Threads for calls")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_flag("--log-json", options.json_log, "Log one JSON object a line");
  AddDuration(app, "--lease-duration", options.lease_duration,
              "A worker that is silent for this long loses its job");
  AddDuration(app, "--retry-backoff", options.retry_backoff,
              "Pause before the second attempt; doubles each time");
  AddDuration(app, "--priority-step", options.priority_step,
              "How much earlier a job of high priority is taken, and later one of low priority");
  AddDuration(app, "--default-ttl", options.default_ttl,
              "Delete jobs this long after their end unless they name a time themselves; 0: never",
              kTenYears);
  AddDuration(app, "--tombstone-ttl", options.tombstone_ttl,
              "How long the request id of a deleted job stays taken, at least", kTenYears);
  AddDuration(app, "--bookmark-interval", options.bookmark_interval,
              "Silence after which a watch gets a bookmark");
  AddDuration(app, "--drain-delay", flags.drain_delay,
              "At SIGTERM: time between reporting NOT_SERVING and refusing calls (default: 2s "
              "where other machines may call, else 0s)");
  AddDuration(app, "--drain-grace", options.drain_grace,
              "At SIGTERM: time for calls that are under way");
}

absl::Status CheckOidc(const OidcOptions& oidc) {
  const bool any = !oidc.issuer.empty() || !oidc.audience.empty() || !oidc.jwks.empty();
  const bool all = !oidc.issuer.empty() && !oidc.audience.empty() && !oidc.jwks.empty();
  if (any && !all)
    return absl::InvalidArgumentError(
        "--oidc-issuer, --oidc-audience and --oidc-jwks need each other");
  if (absl::StartsWithIgnoreCase(oidc.jwks, "http:"))
    return absl::InvalidArgumentError(
        absl::StrCat("--oidc-jwks is ", oidc.jwks, ", expected a file or an https: URL"));
  return absl::OkStatus();
}

absl::Status CheckTls(const ServerOptions& options) {
  if (options.tls.certificate.empty() != options.tls.key.empty())
    return absl::InvalidArgumentError("--tls-cert and --tls-key need each other");
  if (options.tls.client_ca.empty()) return absl::OkStatus();
  if (options.tls.certificate.empty())
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-cert and --tls-key");
  if (options.token_file.empty())
    return absl::InvalidArgumentError(
        "--tls-client-ca needs --token-file, which says who has which certificate");
  return absl::OkStatus();
}

// A Unix socket is protected by its file's mode.
absl::Status CheckListen(const ListenAddress& address, bool insecure,
                         const ServerOptions& options) {
  if (!address.unix_path.empty()) return absl::OkStatus();
  if (!options.tls.certificate.empty()) {
    if (!options.token_file.empty() || !options.oidc.issuer.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("--listen ", address.text,
                     " with TLS would let nobody in: say who may call with --token-file or "
                     "--oidc-issuer"));
  }
  if (address.is_local() && insecure) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--listen ", address.text, " would be in the clear: give --tls-cert and --tls-key",
      address.is_local() ? ", listen on unix:/path, or say --insecure"
                         : "; only an address of this machine can do without, with --insecure"));
}

absl::Status Interpret(const Flags& flags, ServerOptions& options) {
  LF_RETURN_IF_ERROR(CheckOidc(options.oidc));
  LF_RETURN_IF_ERROR(CheckTls(options));
  std::string reachable;
  for (const std::string& text : flags.listen) {
    LF_ASSIGN_OR_RETURN(options.listen.emplace_back(), ParseListenAddress(text));
    LF_RETURN_IF_ERROR(CheckListen(options.listen.back(), flags.insecure, options));
    if (!options.listen.back().is_local()) reachable = text;
  }
  if (!reachable.empty() && flags.allowed_roots.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen ", reachable,
                     " lets other machines in: name the folders that their "
                     "jobs may use with --allowed-root"));
  }
  // Else one of several tenants could hold them all. Without credentials there is one.
  const bool tenants = !options.token_file.empty() || !options.oidc.issuer.empty();
  options.max_watches_per_tenant =
      flags.watches_per_tenant.value_or(tenants ? std::max(1, options.max_watches / 4) : 0);
  // A load balancer needs time to see NOT_SERVING; on one machine there is none.
  options.drain_delay = flags.drain_delay != absl::InfiniteDuration() ? flags.drain_delay
                        : reachable.empty()                           ? absl::ZeroDuration()
                                                                      : absl::Seconds(2);
  for (const std::string& root : flags.allowed_roots) {
    std::error_code error;
    const std::filesystem::path resolved = std::filesystem::canonical(root, error);
    if (error)
      return absl::InvalidArgumentError(
          absl::StrCat("--allowed-root ", root, ": ", error.message()));
    options.allowed_roots.push_back(resolved);
  }
  if (options.handshake_timeout < absl::Milliseconds(100))
    return absl::InvalidArgumentError(absl::StrCat("--handshake-timeout is ",
                                                   absl::FormatDuration(options.handshake_timeout),
                                                   ", expected at least 100ms"));
  if (options.watch_stall_timeout < absl::Milliseconds(100))
    return absl::InvalidArgumentError(
        absl::StrCat("--watch-stall-timeout is ", absl::FormatDuration(options.watch_stall_timeout),
                     ", expected at least 100ms"));
  if (options.lease_duration < absl::Seconds(1))
    return absl::InvalidArgumentError(absl::StrCat("--lease-duration is ",
                                                   absl::FormatDuration(options.lease_duration),
                                                   ", expected at least 1s"));
  return absl::OkStatus();
}

// CLI11's exit code when it printed help, version or an error; nothing to go on.
std::optional<int> Parse(CLI::App& app, int argc, const char* const* argv) {
  constexpr int kParsed = -1;
  const int code = [&]() -> int {
    CLI11_PARSE(app, argc, argv);
    return kParsed;
  }();
  return code == kParsed ? std::nullopt : std::optional<int>(code);
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  CLI::App app("Serves the latentforge API: keeps jobs and leases them to workers.",
               "latentforge-server");
  CommandLine line;
  Flags flags;
  AddFlags(app, flags, line.options);
  ExplainUnknownArguments(&app);
  if (const std::optional<int> code = Parse(app, argc, argv)) {
    line.done = true;
    line.exit_code = *code == 0 ? 0 : 2;
    return line;
  }
  LF_RETURN_IF_ERROR(Interpret(flags, line.options));
  return line;
}

}  // namespace latentforge::service
