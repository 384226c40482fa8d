#include "service/server.h"

#include <cstdlib>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/impl/server_builder_plugin.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "service/accept_watchdog.h"
#include "service/attempts.h"
#include "service/auth/gatekeeper.h"
#include "service/compaction.h"
#include "service/connection_acceptor.h"
#include "service/followed_file.h"
#include "service/job_engine.h"
#include "service/job_name.h"
#include "service/jobs.h"
#include "service/jobs_rpc.h"
#include "service/listen_socket.h"
#include "service/log_intake.h"
#include "service/log_looks.h"
#include "service/maintenance.h"
#include "service/metrics.h"
#include "service/retention.h"
#include "service/scheduler.h"
#include "service/server_tls.h"
#include "service/shared_roots.h"
#include "service/store/open_store.h"
#include "service/store_clock.h"
#include "service/store_follower.h"
#include "service/tenant_gauges.h"
#include "service/tenant_table.h"
#include "service/thread_pool.h"
#include "service/validation.h"
#include "service/watch_registry.h"
#include "service/workers_rpc.h"

namespace latentforge::service {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;  // weights never travel here, only paths
constexpr int kMaxMetadataBytes = 8 << 10;
constexpr size_t kMostSharedRootsTold = 10;
constexpr int kListenerDeadExitCode = 70;  // EX_SOFTWARE
constexpr absl::Duration kTick = absl::Milliseconds(250);
// Less than the second after which followers of a log look again.
constexpr absl::Duration kFreshLook = absl::Milliseconds(500);
// For gRPC to write the last answers and say goodbye, when no call is left.
constexpr absl::Duration kGoodbye = absl::Milliseconds(250);

// What Compaction needs.
static_assert(ServerOptions::kLeastEventsPerJob >= kLeastLongHistory);

std::string RandomKey() {
  std::random_device device;
  std::string key;
  for (int i = 0; i < 32; ++i) key += static_cast<char>(device() & 0xFF);
  return key;
}

void Configure(const ServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  // Also of connections that say nothing: they would stay for two minutes.
  builder.AddChannelArgument(
      GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
      static_cast<int>(absl::ToInt64Milliseconds(options.handshake_timeout)));
  grpc::ResourceQuota quota("calls");
  quota.Resize(static_cast<size_t>(options.call_memory_bytes));
  builder.SetResourceQuota(quota);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
}

// gRPC's reflection library adds itself to every server of a program that is linked
// with it; this takes it away again.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins,
                  [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

// What tenants may use, as the file says at each moment.
absl::StatusOr<TenantSource> OpenTenants(const ServerOptions& options, const Clock& clock) {
  if (options.tenants_file.empty()) return NoTenantLimits(options.allowed_roots);
  const auto parse = [roots = options.allowed_roots](absl::string_view text) {
    return TenantTable::Parse(text, roots);
  };
  LF_ASSIGN_OR_RETURN(std::shared_ptr<FollowedFile<TenantTable>> file,
                      FollowedFile<TenantTable>::Open(options.tenants_file, clock, parse));
  return TenantSource([file] { return file->Current(); });
}

// Also where it is meant, as for a folder of public models: the log is where that can be seen.
void WarnOfSharedRoots(const TenantTable& tenants, const Gatekeeper& gatekeeper,
                       const OidcOptions& oidc) {
  const std::vector<SharedRoot> roots =
      SharedRoots(tenants, gatekeeper.ListedTenants(), !oidc.issuer.empty());
  for (size_t i = 0; i < std::min(roots.size(), kMostSharedRootsTold); ++i)
    Log(Severity::kWarning, Describe(roots[i]));
  if (roots.size() > kMostSharedRootsTold)
    Log(Severity::kWarning, absl::StrCat(roots.size() - kMostSharedRootsTold,
                                         " more folders are open to more than one tenant"));
}

// The web server inside would only say that it could not start.
absl::Status CheckMetricsAddress(const std::string& address) {
  const absl::StatusOr<ListenAddress> parsed = ParseListenAddress(address);
  if (address.empty() || !parsed.ok()) return absl::OkStatus();
  return Annotate(ListenSocket::Open(*parsed).status(), "metrics");
}

// Of options that cannot be served nothing is left, not even a new database: this is before it.
absl::StatusOr<std::vector<ListenSocket>> OpenSockets(const ServerOptions& options) {
  if (!options.tls.certificate.empty()) LF_RETURN_IF_ERROR(CheckTlsFiles(options.tls));
  LF_RETURN_IF_ERROR(CheckMetricsAddress(options.metrics_address));
  std::vector<ListenSocket> sockets;
  for (const ListenAddress& address : options.listen) {
    LF_ASSIGN_OR_RETURN(ListenSocket socket, ListenSocket::Open(address));
    sockets.push_back(std::move(socket));
  }
  return sockets;
}

// gRPC's part of one listener.
using Handler = std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>;

// The server cannot be reached any more, and only a new process can mend that.
void EndProcess(const absl::Status& reason) {
  Log(Severity::kError, "new connections are not accepted; the process ends, to be started again",
      {{"error", std::string(reason.message())}});
  std::_Exit(kListenerDeadExitCode);
}

}  // namespace

// In order of construction: each borrows from those above it.
struct Server::Parts {
  Parts(const ServerOptions& server_options, std::unique_ptr<Store> opened,
        std::unique_ptr<StoreClock> store_clock, std::unique_ptr<Gatekeeper> opened_gatekeeper,
        TenantSource opened_tenants, const std::string& page_token_key)
      : options(server_options),
        store(std::move(opened)),
        clock(std::move(store_clock)),
        tail(*store, hub),
        tenants(std::move(opened_tenants)),
        engine({*store, hub, metrics, *clock, tenants}, {.retry_backoff = options.retry_backoff,
                                                         .one_machine = options.one_machine,
                                                         .priority_step = options.priority_step,
                                                         .default_ttl = options.default_ttl}),
        jobs(engine, checker, PageTokenCodec(page_token_key),
             {options.max_attempts, RandomJobId, [this] { return scheduler.Workers(); }}),
        attempts(*store, PageTokenCodec(page_token_key)),
        scheduler(engine, wakeup, PageTokenCodec(page_token_key),
                  {.lease_duration = options.lease_duration, .version = kVersion}),
        logs(engine, {.keep = options.log_limits, .writers = std::max(1, options.threads / 4)}),
        log_looks(*store, *clock, kFreshLook),
        retention(engine, options.tombstone_ttl),
        compaction(engine, options.events_per_job),
        watches({options.max_watches, options.max_watches_per_tenant},
                std::min<absl::Duration>(absl::Seconds(1), options.bookmark_interval / 2)),
        gatekeeper(std::move(opened_gatekeeper)),
        pool(options.threads),
        jobs_rpc(
            {jobs,
             attempts,
             *store,
             hub,
             log_looks,
             {watches, options.bookmark_interval, options.watch_stall_timeout}},
            {pool, metrics, in_flight, *clock, gatekeeper->authenticator(), options.call_deadline}),
        workers_rpc(scheduler, logs,
                    {pool, metrics, in_flight, *clock, gatekeeper->authenticator(),
                     options.call_deadline}) {
    engine.set_on_queued([this] { wakeup.Poke(); });
  }

  const ServerOptions options;
  std::unique_ptr<Store> store;
  std::unique_ptr<StoreClock> clock;
  WatchHub hub;
  WatchTail tail;
  Metrics metrics;
  const TenantSource tenants;
  JobEngine engine;
  FileSpecChecker checker;
  Wakeup wakeup;
  Jobs jobs;
  Attempts attempts;
  Scheduler scheduler;
  LogIntake logs;
  LogLooks log_looks;
  Retention retention;
  Compaction compaction;
  WatchRegistry watches;
  const std::unique_ptr<Gatekeeper> gatekeeper;
  InFlight in_flight;
  ThreadPool pool;
  JobsRpc jobs_rpc;
  WorkersRpc workers_rpc;
  std::unique_ptr<Maintenance> maintenance;
  std::vector<std::string> addresses;
  std::string metrics_address;
  std::vector<Handler> handlers;  // of acceptors, which go first
  std::unique_ptr<grpc::Server> grpc_server;
  std::unique_ptr<StoreFollower> follower;  // of a shared store
  std::vector<std::unique_ptr<ConnectionAcceptor>> acceptors;
  std::vector<std::unique_ptr<AcceptWatchdog>> watchdogs;

  absl::Status Listen(std::vector<ListenSocket> sockets);
  void Accept(ListenSocket socket, Wire wire,
              grpc::experimental::ExternalConnectionAcceptor& handler);
  absl::Status ServeMetrics();
  void SetServing(bool serving);
  void SetReady(bool ready);
  // What time alone brings about.
  absl::Status Tick();
};

absl::Status Server::Parts::Tick() {
  absl::Status status = scheduler.Tick();
  status.Update(retention.Sweep());
  status.Update(compaction.Sweep());
  return status;
}

absl::Status Server::Parts::Listen(std::vector<ListenSocket> sockets) {
  grpc::EnableDefaultHealthCheckService(true);
  if (options.enable_reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  if (!options.enable_reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  Configure(options, builder);
  const std::shared_ptr<grpc::ServerCredentials> local = grpc::InsecureServerCredentials();
  std::shared_ptr<grpc::ServerCredentials> tcp = local;
  if (!options.tls.certificate.empty()) {
    tcp = MakeTlsCredentials(options.tls, gatekeeper->authenticator());
  }
  for (const ListenAddress& address : options.listen) {
    handlers.push_back(builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
        address.unix_path.empty() ? tcp : local));
  }
  builder.RegisterService(&jobs_rpc);
  builder.RegisterService(&workers_rpc);
  grpc_server = builder.BuildAndStart();
  if (grpc_server == nullptr) return absl::InternalError("gRPC did not start");
  for (size_t i = 0; i < sockets.size(); ++i) {
    const bool tls = options.listen[i].unix_path.empty() && !options.tls.certificate.empty();
    Accept(std::move(sockets[i]), tls ? Wire::kTls : Wire::kPlain, *handlers[i]);
  }
  return absl::OkStatus();
}

void Server::Parts::Accept(ListenSocket socket, Wire wire,
                           grpc::experimental::ExternalConnectionAcceptor& handler) {
  addresses.push_back(socket.text());
  const auto serve = [&handler](UniqueFd connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.fd = connection.Release();
    handler.HandleNewConnection(&parameters);
  };
  acceptors.push_back(std::make_unique<ConnectionAcceptor>(
      std::move(socket), AcceptorOptions{.descriptor_limit = SuitableDescriptorLimit()}, serve));
  watchdogs.push_back(std::make_unique<AcceptWatchdog>(addresses.back(),
                                                       WatchdogOptions{.wire = wire}, EndProcess));
}

absl::Status Server::Parts::ServeMetrics() {
  if (options.metrics_address.empty()) return absl::OkStatus();
  const auto read = [this]() -> absl::StatusOr<Metrics::Gauges> {
    Metrics::Gauges gauges;
    LF_ASSIGN_OR_RETURN(gauges.stats, store->Stats());
    LF_ASSIGN_OR_RETURN(gauges.presence, scheduler.CountPresence());
    LF_ASSIGN_OR_RETURN(gauges.tenants, ReadTenantGauges(*store, *tenants(), gauges.stats));
    gauges.open_watches = watches.size();
    return gauges;
  };
  LF_ASSIGN_OR_RETURN(metrics_address, metrics.Serve(options.metrics_address, *clock, read));
  return absl::OkStatus();
}

void Server::Parts::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = grpc_server->GetHealthCheckService();
  health->SetServingStatus(serving);  // "" and every name that was set before
  SetReady(serving);
}

void Server::Parts::SetReady(bool ready) {
  grpc::HealthCheckServiceInterface* health = grpc_server->GetHealthCheckService();
  health->SetServingStatus(v1::JobService::service_full_name(), ready);
  health->SetServingStatus(v1::WorkerService::service_full_name(), ready);
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() {
  if (parts_->grpc_server != nullptr) Stop();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Clock& clock) {
  LF_ASSIGN_OR_RETURN(std::vector<ListenSocket> sockets, OpenSockets(options));
  LF_ASSIGN_OR_RETURN(std::unique_ptr<Gatekeeper> gatekeeper,
                      Gatekeeper::Open(options.token_file, options.oidc, clock));
  LF_ASSIGN_OR_RETURN(TenantSource tenants, OpenTenants(options, clock));
  WarnOfSharedRoots(*tenants(), *gatekeeper, options.oidc);
  LF_ASSIGN_OR_RETURN(
      std::unique_ptr<Store> store,
      OpenStore({options.database, options.database_max_bytes, options.threads}, clock));
  LF_ASSIGN_OR_RETURN(auto store_clock, StoreClock::Start(*store, clock));
  LF_ASSIGN_OR_RETURN(const std::string key, store->GetOrPutSecret("page_token_key", RandomKey()));
  auto parts = std::make_unique<Parts>(options, std::move(store), std::move(store_clock),
                                       std::move(gatekeeper), std::move(tenants), key);
  LF_RETURN_IF_ERROR(parts->scheduler.RenewLeases());
  LF_RETURN_IF_ERROR(parts->ServeMetrics());
  LF_RETURN_IF_ERROR(parts->Listen(std::move(sockets)));
  parts->maintenance = std::make_unique<Maintenance>([work = parts.get()] { return work->Tick(); },
                                                     parts->wakeup, kTick);
  parts->SetServing(true);
  if (parts->store->shared()) {
    parts->follower =
        std::make_unique<StoreFollower>(parts->tail, *parts->clock, kTick,
                                        [&served = *parts](bool ready) { served.SetReady(ready); });
  }
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

const std::vector<std::string>& Server::addresses() const { return parts_->addresses; }

const std::string& Server::metrics_address() const { return parts_->metrics_address; }

void Server::Stop() {
  Parts& parts = *parts_;
  parts.follower.reset();  // before SetServing, which it could undo
  parts.SetServing(false);
  parts.clock->SleepFor(parts.options.drain_delay);
  parts.scheduler.Drain();
  parts.watches.Drain();
  parts.in_flight.WaitForNone(parts.options.drain_grace);
  // Without a deadline one idle stream would hold this up for ever. And gRPC waits for
  // an answer of every connected client, which one that makes no call does not give:
  // the grace is for calls, not for connections.
  parts.watchdogs.clear();
  parts.acceptors.clear();
  parts.grpc_server->Shutdown(absl::ToChronoTime(absl::Now() + kGoodbye));
  parts.grpc_server.reset();
  parts.maintenance.reset();
}

}  // namespace latentforge::service
