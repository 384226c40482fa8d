#include "tests/system/cluster.h"

#include <signal.h>

#include <chrono>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kPatience = absl::Seconds(60);

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  context.set_wait_for_ready(true);
}

}  // namespace

bool Await(const std::function<bool()>& done) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!done()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(10));  // between polls of other processes
  }
  return true;
}

std::vector<std::string> Lines(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

bool IsRunning(pid_t pid) {
  const absl::StatusOr<std::string> stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
  return stat.ok() && !absl::StrContains(*stat, ") Z ") && !absl::StrContains(*stat, ") X ");
}

Daemon::Daemon(const std::string& name, const std::vector<std::string>& arguments,
               const std::vector<std::string>& launcher) {
  ChildCommand command;
  command.argv = launcher;
  command.argv.push_back(absl::StrCat(LATENTFORGE_BINARY_DIR, "/bin/", name));
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  auto started = ChildProcess::Start(command);
  EXPECT_TRUE(started.ok()) << started.status();
  if (!started.ok()) return;
  process_ = *std::move(started);
  reader_ = std::thread([this] {
    while (!process_->finished() && process_->Poll(-1, absl::InfiniteDuration(), &output_).ok()) {
    }
  });
}

Daemon::~Daemon() {
  Signal(SIGKILL);
  Wait();
  if (testing::Test::HasFailure()) std::cerr << log();
}

void Daemon::Signal(int signal) const {
  // Not reaped before the reader has been joined in Wait.
  if (reader_.joinable()) kill(process_->pid(), signal);
}

ExitStatus Daemon::Wait() {
  if (reader_.joinable()) reader_.join();
  return process_ != nullptr ? process_->exit_status() : ExitStatus{.code = -1};
}

Cluster::Cluster(ClusterOptions options)
    : options_(std::move(options)), folder_(checkpoint::NewTestDirectory("cluster")) {
  const absl::Status written = checkpoint::WriteTinyCheckpoint(folder_ / "model");
  EXPECT_TRUE(written.ok()) << written;
  std::ofstream(folder_ / "corpus.txt") << std::string(1 << 16, 'a') << "\n";
  servers_.resize(options_.databases.size());
  for (size_t server = 0; server < servers(); ++server) StartServer(server);
}

Cluster::~Cluster() {
  workers_.clear();
  servers_.clear();
  fs::remove_all(folder_);
}

std::string Cluster::address(size_t server) const {
  return absl::StrCat("unix:", (folder_ / absl::StrCat("server", server, ".sock")).string());
}

void Cluster::AwaitReady(Daemon& daemon, const fs::path& ready) {
  EXPECT_TRUE(Await([&] { return fs::exists(ready) || daemon.ended(); })) << "no " << ready;
  if (fs::exists(ready) || !daemon.ended()) return;
  const ExitStatus end = daemon.Wait();
  ADD_FAILURE() << "a daemon ended with " << end.ToString() << ", expected " << ready << ":\n"
                << daemon.log();
}

void Cluster::StartServer(size_t server) {
  const fs::path ready = folder_ / absl::StrCat("server", server, ".ready");
  fs::remove(ready);
  const std::string& database = options_.databases[server];
  std::vector<std::string> flags = {
      "--listen",         address(server),
      "--database",       database.empty() ? (folder_ / "jobs.db").string() : database,
      "--ready-file",     ready.string(),
      "--lease-duration", options_.lease,
      "--retry-backoff",  "10ms",
      "--drain-delay",    "0s"};
  flags.insert(flags.end(), options_.server_flags.begin(), options_.server_flags.end());
  servers_[server] =
      std::make_unique<Daemon>("latentforge-server", flags, options_.server_launcher);
  AwaitReady(*servers_[server], ready);
  if (server == asked_) Ask(server);
}

// A connection of its own: one to a server that was killed fails its first call.
void Cluster::Ask(size_t server) {
  asked_ = server;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel =
      grpc::CreateCustomChannel(address(server), grpc::InsecureChannelCredentials(), arguments);
  jobs_ = v1::JobService::NewStub(channel);
  leases_ = v1::WorkerService::NewStub(channel);
}

void Cluster::KillServer(size_t server) {
  servers_[server]->Signal(SIGKILL);
  servers_[server]->Wait();
}

Daemon& Cluster::StartWorker(const std::string& name, const WorkerOptions& options) {
  const fs::path ready = folder_ / (name + ".ready");
  fs::remove(ready);
  std::vector<std::string> flags = {
      "--server",
      options.server.empty() ? address() : options.server,
      "--name",
      name,
      "--scratch",
      (options.scratch.empty() ? folder_ / ("scratch." + name) : options.scratch).string(),
      "--convert",
      absl::StrCat(LATENTFORGE_BINARY_DIR, "/bin/", options.convert),
      "--ready-file",
      ready.string(),
      "--stop-grace",
      "3s"};
  flags.insert(flags.end(), options.flags.begin(), options.flags.end());
  workers_[name] = std::make_unique<Daemon>("latentforge-worker", flags, options.launcher);
  AwaitReady(*workers_[name], ready);
  return *workers_[name];
}

std::string Cluster::Submit(const std::vector<std::string>& attempts) {
  const fs::path out = folder_ / absl::StrCat("out", ++submitted_);
  std::vector<std::string> lists;
  for (const std::string& steps : attempts) {
    lists.push_back(absl::StrCat("[", absl::StrReplaceAll(steps, {{"@", folder_.string()}}), "]"));
  }
  std::ofstream(out.string() + ".script.json")
      << "{\"attempts\":[" << absl::StrJoin(lists, ",") << "]}";
  v1::CreateJobRequest request;
  v1::JobSpec& spec = *request.mutable_spec();
  spec.mutable_source()->set_uri((folder_ / "model").string());
  spec.mutable_budget()->set_kv_budget(0.5);
  spec.mutable_calibration()->add_corpora()->set_uri((folder_ / "corpus.txt").string());
  spec.mutable_output()->set_uri(out.string());
  v1::CreateJobResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = jobs_->CreateJob(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.job().name();
}

v1::Job Cluster::Get(const std::string& job) {
  v1::GetJobRequest request;
  request.set_name(job);
  v1::GetJobResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = jobs_->GetJob(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.job();
}

std::vector<v1::Job> Cluster::List(bool active) {
  v1::ListJobsRequest request;
  request.set_page_size(1000);
  if (active) {
    for (const v1::JobState state :
         {v1::JOB_STATE_QUEUED, v1::JOB_STATE_RUNNING, v1::JOB_STATE_CANCELLING}) {
      request.mutable_filter()->add_states(state);
    }
  }
  std::vector<v1::Job> jobs;
  do {
    v1::ListJobsResponse response;
    grpc::ClientContext context;
    SetDeadline(context);
    const grpc::Status status = jobs_->ListJobs(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    jobs.insert(jobs.end(), response.jobs().begin(), response.jobs().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return jobs;
}

void Cluster::Cancel(const std::string& job) {
  v1::CancelJobRequest request;
  request.set_name(job);
  v1::CancelJobResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = jobs_->CancelJob(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

void Cluster::Pause(const std::string& job) {
  v1::PauseJobRequest request;
  request.set_name(job);
  v1::PauseJobResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = jobs_->PauseJob(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

void Cluster::Resume(const std::string& job) {
  v1::ResumeJobRequest request;
  request.set_name(job);
  v1::ResumeJobResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = jobs_->ResumeJob(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

void Cluster::Retry(const std::string& job) {
  v1::RetryJobRequest request;
  request.set_name(job);
  v1::RetryJobResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = jobs_->RetryJob(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

pid_t Cluster::AwaitProcess(size_t count) {
  pid_t pid = 0;
  EXPECT_TRUE(Await([&] {
    const std::vector<std::string> pids = Lines(Path("pids"));
    return pids.size() >= count && absl::SimpleAtoi(pids[count - 1], &pid);
  }));
  return pid;
}

void Cluster::Go() { std::ofstream(Path("go")) << "go\n"; }

void Cluster::AwaitState(const std::string& job, v1::JobState state) {
  EXPECT_TRUE(Await([&] { return Get(job).status().state() == state; }))
      << Get(job).ShortDebugString();
}

v1::Job Cluster::AwaitEnd(const std::string& job) {
  v1::Job now;
  EXPECT_TRUE(Await([&] {
    now = Get(job);
    const v1::JobState state = now.status().state();
    return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
           state == v1::JOB_STATE_CANCELLED;
  })) << now.ShortDebugString();
  return now;
}

std::vector<v1::JobEvent> Cluster::History(const std::string& job) {
  v1::WatchJobRequest request;
  request.set_name(job);
  request.set_from_sequence(0);
  grpc::ClientContext context;
  SetDeadline(context);
  std::vector<v1::JobEvent> events;
  const auto stream = jobs_->WatchJob(&context, request);
  for (v1::WatchJobResponse message; stream->Read(&message);) {
    if (message.has_event()) events.push_back(message.event());
  }
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return events;
}

std::vector<v1::Worker> Cluster::Workers() {
  v1::ListWorkersResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::Status status = leases_->ListWorkers(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return {response.workers().begin(), response.workers().end()};
}

grpc::Status Cluster::Beat(const v1::Lease& lease, const std::string& worker) {
  v1::HeartbeatRequest request;
  *request.mutable_lease() = lease;
  request.set_worker(worker);
  v1::HeartbeatResponse response;
  grpc::ClientContext context;
  SetDeadline(context);
  return leases_->Heartbeat(&context, request, &response);
}

fs::path Cluster::Scratch(const std::string& worker, const std::string& job) const {
  const std::vector<std::string> parts = absl::StrSplit(job, '/');
  return folder_ / ("scratch." + worker) / parts.back();
}

}  // namespace latentforge
