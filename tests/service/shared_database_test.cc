// Several servers on one PostgreSQL: the real processes, and what a failure of one of
// them, or of the database, means to clients and workers.
#include <atomic>
#include <fstream>
#include <thread>

#include "gmock/gmock.h"
#include "grpc/grpc.h"
#include "service/server.h"
#include "service/time_util.h"
#include "tests/fakes/skewed_clock.h"
#include "tests/service/rpc_client.h"
#include "tests/service/server_process.h"
#include "tests/service/store/postgres_server.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kJobService[] = "latentforge.v1.JobService";

bool Await(const std::function<bool()>& done) {
  const absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(60);
  while (!done()) {
    if (RealClock().Monotonic() > deadline) return false;
    RealClock().SleepFor(absl::Milliseconds(20));  // between looks at other processes
  }
  return true;
}

bool IsUnavailable(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE;
}

// A worker of one server, on a thread: takes jobs, ends each after a moment, and tells so
// until it is answered or has lost its lease.
class ThreadWorker {
 public:
  ThreadWorker(const std::string& address, const std::string& name)
      : client_(address), name_(name), thread_([this] { Run(); }) {}
  ~ThreadWorker() {
    stopping_ = true;
    thread_.join();
  }

 private:
  void Run() {
    v1::AcquireLeaseRequest request = RpcClient::AcquireRequest(1);
    request.mutable_worker()->set_name(name_);
    while (!stopping_) {
      Context context;
      v1::AcquireLeaseResponse response;
      const grpc::Status status = client_.workers->AcquireLease(&context, request, &response);
      if (status.ok() && response.has_lease()) {
        RealClock().SleepFor(absl::Milliseconds(50));  // the work
        while (!stopping_ && IsUnavailable(client_.Succeed(response.lease())))
          RealClock().SleepFor(absl::Milliseconds(50));
      } else if (!status.ok()) {
        RealClock().SleepFor(absl::Milliseconds(50));
      }
    }
  }

  RpcClient client_;
  const std::string name_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

class SharedDatabaseTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { grpc_init(); }

  void TearDown() override {
    if (!database_.running()) database_.Start();
  }

  static std::string AddressOf(const TempDir& dir) {
    return absl::StrCat("unix:", (dir.path() / "server.sock").string());
  }

  std::string Create(RpcClient& client) {
    v1::CreateJobRequest request = TinyJob(files_.path(), ++jobs_);
    request.set_request_id(absl::StrCat("r", jobs_));
    v1::CreateJobResponse response;
    const grpc::Status status = client.Create(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().name();
  }

  PostgresServer& database_ = PostgresServer::Shared();
  const std::string uri_ = database_.NewDatabase();
  TempDir files_;
  TempDir a_;
  TempDir b_;
  int jobs_ = 0;
};

TEST_F(SharedDatabaseTest, EveryJobEndsThoughAServerIsKilled) {
  auto first = std::make_unique<ServerProcess>(a_.path(), std::vector<std::string>(), uri_);
  ServerProcess second(b_.path(), {}, uri_);
  first->WaitReady();
  second.WaitReady();
  RpcClient at_first(AddressOf(a_));
  RpcClient at_second(AddressOf(b_));
  std::vector<std::string> jobs;
  for (int i = 0; i < 10; ++i) {
    jobs.push_back(Create(at_first));
    jobs.push_back(Create(at_second));
  }
  // A watch of a job of the first server, at the second.
  Context context;
  v1::WatchJobRequest request;
  request.set_name(jobs.front());
  request.set_from_sequence(0);
  const auto watch = at_second.jobs->WatchJob(&context, request);
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  // The first server grants the watched job, and dies with another worker's job.
  const v1::Lease watched = at_first.Acquire().lease();
  EXPECT_EQ(watched.job(), jobs.front());
  ThreadWorker worker_of_first(AddressOf(a_), "worker-a");
  ASSERT_TRUE(Await([&] { return at_second.StateOf(jobs[1]) != v1::JOB_STATE_QUEUED; }));
  first->Kill(SIGKILL);
  ThreadWorker worker_of_second(AddressOf(b_), "worker-b");
  EXPECT_TRUE(at_second.Succeed(watched).ok());  // its lease means the same there
  for (const std::string& job : jobs)
    EXPECT_TRUE(Await([&] { return at_second.StateOf(job) == v1::JOB_STATE_SUCCEEDED; })) << job;
  int64_t sequence = 0;
  while (watch->Read(&message)) EXPECT_EQ(message.event().sequence(), ++sequence);
  EXPECT_EQ(sequence, 3);
  EXPECT_TRUE(watch->Finish().ok());
  first.reset();
  ServerProcess again(a_.path(), {}, uri_);
  again.WaitReady();
  RpcClient at_again(AddressOf(a_));
  EXPECT_EQ(at_again.StateOf(jobs.back()), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(SharedDatabaseTest, AServerOutlivesARestartOfTheDatabase) {
  ServerProcess server(a_.path(), {}, uri_);
  server.WaitReady();
  RpcClient client(AddressOf(a_));
  const std::string job = Create(client);
  const v1::Lease lease = client.Acquire().lease();
  EXPECT_EQ(AskHealth(client, kJobService), 1);
  database_.Stop();
  v1::CreateJobRequest request = TinyJob(files_.path(), 100);
  v1::CreateJobResponse response;
  const grpc::Status refused = client.Create(request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE) << refused.error_message();
  EXPECT_EQ(ReasonOf(refused), "STORE_DOWN");
  EXPECT_TRUE(Await([&] { return AskHealth(client, kJobService) == 2; }));
  EXPECT_EQ(AskHealth(client, ""), 1);     // nothing that a restart of the server would help
  RealClock().SleepFor(absl::Seconds(3));  // longer than the lease
  database_.Start();
  EXPECT_TRUE(Await([&] { return AskHealth(client, kJobService) == 1; }));
  EXPECT_TRUE(client.Succeed(lease).ok());  // nobody took the job for its worker's silence
  EXPECT_EQ(client.StateOf(job), v1::JOB_STATE_SUCCEEDED);
  Create(client);
  EXPECT_THAT(server.Log(), HasSubstr("the database does not answer"));
  EXPECT_THAT(server.Log(), HasSubstr("the database answers again"));
}

// Commits whose answers are lost included: clients repeat what nobody answered.
TEST_F(SharedDatabaseTest, NothingIsLostOrDoneTwiceWhileTheDatabaseDies) {
  const std::vector<std::string> flags = {"--max-attempts", "100"};
  ServerProcess first(a_.path(), flags, uri_);
  ServerProcess second(b_.path(), flags, uri_);
  first.WaitReady();
  second.WaitReady();
  ThreadWorker worker_of_first(AddressOf(a_), "worker-a");
  ThreadWorker worker_of_second(AddressOf(b_), "worker-b");
  std::atomic<bool> quiet = false;
  std::vector<std::string> jobs;
  int unanswered = 0;
  std::thread submitter([&] {
    RpcClient clients[] = {RpcClient(AddressOf(a_)), RpcClient(AddressOf(b_))};
    while (!quiet) {
      v1::CreateJobRequest request = TinyJob(files_.path(), ++jobs_);
      request.set_request_id(absl::StrCat("r", jobs_));
      v1::CreateJobResponse response;
      grpc::Status status;
      // Again at the other server, as a client with two addresses would.
      for (int i = 0; IsUnavailable(status = clients[i % 2].Create(request, &response)); ++i) {
        ++unanswered;
        RealClock().SleepFor(absl::Milliseconds(20));
      }
      ASSERT_TRUE(status.ok()) << status.error_message();
      jobs.push_back(response.job().name());
    }
  });
  for (int i = 0; i < 3; ++i) {
    RealClock().SleepFor(absl::Milliseconds(300));  // of work between outages
    database_.Stop();
    database_.Start();
  }
  quiet = true;
  submitter.join();
  EXPECT_GT(unanswered, 0);
  EXPECT_EQ(AskSql(uri_, "SELECT count(*) FROM jobs"), static_cast<int64_t>(jobs.size()));
  RpcClient client(AddressOf(a_));
  ASSERT_TRUE(Await([&] { return AskHealth(client, kJobService) == 1; }));
  for (const std::string& job : jobs)
    EXPECT_TRUE(Await([&] { return client.StateOf(job) == v1::JOB_STATE_SUCCEEDED; })) << job;
  EXPECT_EQ(AskSql(uri_,
                   "SELECT count(*) FROM (SELECT ordinal FROM events GROUP BY ordinal "
                   "HAVING count(*) <> max(sequence)) AS jobs_with_gaps"),
            0);
}

TEST_F(SharedDatabaseTest, NoLogHoldsThePassword) {
  RunSql(uri_, "GRANT ALL ON SCHEMA public TO guarded");
  const std::filesystem::path pass = files_.path() / "pass";
  std::ofstream(pass) << "*:*:*:*:" << PostgresServer::kPassword << "\n";
  std::filesystem::permissions(pass, std::filesystem::perms::owner_read);
  const std::string guarded = PostgresServer::WithRole(uri_, PostgresServer::kGuardedRole);
  ServerProcess server(a_.path(), {}, PostgresServer::With(guarded, "passfile=" + pass.string()));
  server.WaitReady();
  EXPECT_THAT(server.Log(), HasSubstr("postgresql://guarded@"));
  database_.Stop();
  ASSERT_TRUE(Await([&] { return absl::StrContains(server.Log(), "does not answer"); }));
  EXPECT_THAT(server.Log(), Not(HasSubstr(PostgresServer::kPassword)));
  ServerProcess careless(b_.path(), {}, "postgresql://guarded:correct-horse@localhost/jobs");
  EXPECT_EQ(WEXITSTATUS(careless.Wait()), 1);
  EXPECT_THAT(careless.Log(), HasSubstr("holds a password"));
  EXPECT_THAT(careless.Log(), Not(HasSubstr(PostgresServer::kPassword)));
}

TEST_F(SharedDatabaseTest, LeasesFollowTheDatabasesClock) {
  const auto start = [&](const TempDir& dir, Clock& clock) {
    ServerOptions options;
    options.listen.push_back(*ParseListenAddress(AddressOf(dir)));
    options.database = uri_;
    options.lease_duration = absl::Seconds(2);
    auto started = Server::Start(options, clock);
    EXPECT_TRUE(started.ok()) << started.status();
    return *std::move(started);
  };
  SkewedClock early(-absl::Minutes(10));
  SkewedClock late(absl::Minutes(10));
  const auto server_early = start(a_, early);
  const auto server_late = start(b_, late);
  RpcClient at_early(AddressOf(a_));
  RpcClient at_late(AddressOf(b_));
  const std::string job = Create(at_early);
  const v1::Lease lease = at_early.Acquire().lease();
  // Longer than a lease, and than the servers' first, in which they end none.
  for (int i = 0; i < 10; ++i) {
    Context context;
    v1::HeartbeatRequest request;
    *request.mutable_lease() = lease;
    v1::HeartbeatResponse response;
    const grpc::Status beat =
        (i % 2 == 0 ? at_early : at_late).workers->Heartbeat(&context, request, &response);
    ASSERT_TRUE(beat.ok()) << beat.error_message();
    RealClock().SleepFor(absl::Milliseconds(400));
  }
  EXPECT_EQ(at_late.StateOf(job), v1::JOB_STATE_RUNNING);
  const absl::Duration silent_from = RealClock().Monotonic();
  EXPECT_EQ(at_late.Acquire().lease().lease_epoch(), lease.lease_epoch() + 1);
  EXPECT_LT(RealClock().Monotonic() - silent_from, absl::Seconds(10));
  Context context;
  v1::GetJobRequest request;
  request.set_name(job);
  v1::GetJobResponse response;
  ASSERT_TRUE(at_late.jobs->GetJob(&context, request, &response).ok());
  EXPECT_LT(absl::AbsDuration(FromProto(response.job().update_time()) - RealClock().Now()),
            absl::Minutes(1));
}

}  // namespace
}  // namespace latentforge::service
