// The real latentforge-server: what survives its death, and how it stops.
#include "tests/service/server_process.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "tests/service/rpc_client.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

class ServerProcessTest : public testing::Test {
 protected:
  std::string Address() const {
    return absl::StrCat("unix:", (dir_.path() / "server.sock").string());
  }

  std::vector<std::string> Files() const { return ListDirectory(dir_.path()).value(); }

  TempDir dir_;
};

TEST_F(ServerProcessTest, AKilledServerLosesNoAcknowledgedJob) {
  std::vector<std::string> acknowledged;
  for (int round = 0; round < 4; ++round) {
    ServerProcess server(dir_.path());
    server.WaitReady();
    RpcClient client(Address());
    for (const std::string& name : acknowledged) client.StateOf(name);
    for (int i = 0; i < 3; ++i) {
      v1::CreateJobRequest request = TinyJob(dir_.path(), round * 3 + i);
      request.set_request_id(absl::StrCat("request-", round * 3 + i));
      v1::CreateJobResponse response;
      const grpc::Status status = client.Create(request, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      acknowledged.push_back(response.job().name());
    }
    server.Kill(SIGKILL);  // right after the answer
  }
  ServerProcess server(dir_.path());
  server.WaitReady();
  RpcClient client(Address());
  Context context;
  v1::ListJobsResponse listed;
  ASSERT_TRUE(client.jobs->ListJobs(&context, {}, &listed).ok());
  std::vector<std::string> names;
  for (const v1::Job& job : listed.jobs()) names.push_back(job.name());
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(acknowledged));
  // A client that did not hear the answer asks again and gets the same job.
  v1::CreateJobRequest repeat = TinyJob(dir_.path(), 0);
  repeat.set_request_id("request-0");
  v1::CreateJobResponse response;
  ASSERT_TRUE(client.Create(repeat, &response).ok());
  EXPECT_EQ(response.job().name(), acknowledged[0]);
}

TEST_F(ServerProcessTest, ALeaseAndAWatchSurviveTheServer) {
  std::string job;
  v1::Lease lease;
  {
    ServerProcess server(dir_.path());
    server.WaitReady();
    RpcClient client(Address());
    v1::CreateJobResponse response;
    ASSERT_TRUE(client.Create(TinyJob(dir_.path(), 0), &response).ok());
    job = response.job().name();
    lease = client.Acquire().lease();
    server.Kill(SIGKILL);
  }
  ServerProcess server(dir_.path());
  server.WaitReady();
  RpcClient client(Address());
  EXPECT_EQ(client.StateOf(job), v1::JOB_STATE_RUNNING);
  ASSERT_TRUE(client.Succeed(lease).ok());
  Context context;
  v1::WatchJobRequest request;
  request.set_name(job);
  request.set_from_sequence(1);  // what a watcher saw before the kill
  const auto watch = client.jobs->WatchJob(&context, request);
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  int64_t sequence = 1;
  while (watch->Read(&message)) EXPECT_EQ(message.event().sequence(), ++sequence);
  EXPECT_EQ(sequence, 3);
  EXPECT_TRUE(watch->Finish().ok());
}

TEST_F(ServerProcessTest, ALostWorkersJobIsOfferedAgain) {
  ServerProcess server(dir_.path());
  server.WaitReady();
  RpcClient client(Address());
  v1::CreateJobResponse response;
  ASSERT_TRUE(client.Create(TinyJob(dir_.path(), 0), &response).ok());
  const v1::Lease silent = client.Acquire().lease();
  const v1::Lease next = client.Acquire().lease();  // waits for the lease to end
  EXPECT_EQ(next.job(), silent.job());
  EXPECT_EQ(next.lease_epoch(), silent.lease_epoch() + 1);
  EXPECT_EQ(ReasonOf(client.Succeed(silent)), "LEASE_LOST");
  EXPECT_TRUE(client.Succeed(next).ok());
}

TEST_F(ServerProcessTest, ItsSocketIsForItsUserAlone) {
  ServerProcess server(dir_.path());
  server.WaitReady();
  using std::filesystem::perms;
  EXPECT_EQ(std::filesystem::status(dir_.path() / "server.sock").permissions() &
                (perms::group_all | perms::others_all),
            perms::none);
}

TEST_F(ServerProcessTest, SigtermEndsItInTimeThoughAWatchIsOpen) {
  ServerProcess server(dir_.path());
  server.WaitReady();
  RpcClient client(Address());
  v1::CreateJobResponse response;
  ASSERT_TRUE(client.Create(TinyJob(dir_.path(), 0), &response).ok());
  Context context;
  v1::WatchJobRequest request;
  request.set_name(response.job().name());
  const auto watch = client.jobs->WatchJob(&context, request);
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  std::thread reader([&] {
    EXPECT_FALSE(watch->Read(&message));
    EXPECT_EQ(ReasonOf(watch->Finish()), "DRAINING");
  });
  const absl::Duration start = RealClock().Monotonic();
  const int status = server.Kill(SIGTERM);
  // Less than --drain-grace: nothing had to be cut off.
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(4));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << "\n" << server.Log();
  reader.join();
}

TEST_F(ServerProcessTest, SigtermEndsItInTimeThoughAClientIsStuck) {
  ServerProcess server(dir_.path(), {"--drain-grace", "500ms"});
  server.WaitReady();
  RpcClient client(Address());
  v1::CreateJobResponse response;
  ASSERT_TRUE(client.Create(TinyJob(dir_.path(), 0), &response).ok());
  Context context;
  v1::WatchJobRequest request;
  request.set_name(response.job().name());
  const auto watch = client.jobs->WatchJob(&context, request);
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  const absl::Duration start = RealClock().Monotonic();
  const int status = server.Kill(SIGTERM);  // meanwhile this client reads nothing
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(10));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << "\n" << server.Log();
}

// Asks grpc.reflection.v1alpha for the names of all services, in the wire format:
// Debian ships neither the description nor a stub.
grpc::Status ListServices(const std::shared_ptr<grpc::Channel>& channel, std::string& answer) {
  const grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  Context context;
  const std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
      grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
          channel.get(), method, &context));
  const grpc::Slice list_services("\x3a\x01*");  // field 7, one byte: "*"
  stream->Write(grpc::ByteBuffer(&list_services, 1));
  stream->WritesDone();
  grpc::ByteBuffer reply;
  std::vector<grpc::Slice> slices;
  if (stream->Read(&reply) && reply.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices)
      answer.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return stream->Finish();
}

// Connects without saying anything; invalid when nobody listens or the queue is full.
UniqueFd Connect(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), name.sun_path);
  const bool connected =
      connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0;
  return connected ? std::move(fd) : UniqueFd();
}

TEST_F(ServerProcessTest, AcceptsAgainAfterDescriptorsRanOut) {
  ServerProcess server(dir_.path());
  server.WaitReady();
  const rlimit few = {64, 64};
  ASSERT_EQ(prlimit(server.pid(), RLIMIT_NOFILE, &few, nullptr), 0);
  {
    std::vector<UniqueFd> connections;
    for (int i = 0; i < 200; ++i) {
      connections.push_back(Connect((dir_.path() / "server.sock").string()));
    }
    const absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(30);
    while (!absl::StrContains(server.Log(), "Too many open files") &&
           RealClock().Monotonic() < deadline) {
      RealClock().SleepFor(absl::Milliseconds(5));
    }
    EXPECT_THAT(server.Log(), HasSubstr("too many connections on unix:"));
  }
  RpcClient client(Address());
  Context context;
  v1::ListJobsResponse listed;
  const grpc::Status status = client.jobs->ListJobs(&context, {}, &listed);
  EXPECT_TRUE(status.ok()) << status.error_message() << server.Log();
}

TEST_F(ServerProcessTest, ReflectionNamesTheServicesWhereItIsAskedFor) {
  std::string answer;
  {
    ServerProcess server(dir_.path());
    server.WaitReady();
    RpcClient client(Address());
    EXPECT_EQ(ListServices(client.channel, answer).error_code(), grpc::StatusCode::UNIMPLEMENTED);
    EXPECT_EQ(answer, "");
  }
  ServerProcess server(dir_.path(), {"--enable-reflection"});
  server.WaitReady();
  RpcClient client(Address());
  const grpc::Status status = ListServices(client.channel, answer);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(answer, HasSubstr("latentforge.v1.JobService"));
  EXPECT_THAT(answer, HasSubstr("latentforge.v1.WorkerService"));
}

TEST_F(ServerProcessTest, ATakenPortIsNamedWithoutTheLibrarysOwnWords) {
  const UniqueFd holder(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(bind(holder.get(), reinterpret_cast<const sockaddr*>(&name), size), 0);
  ASSERT_EQ(listen(holder.get(), 1), 0);
  ASSERT_EQ(getsockname(holder.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  const std::string address = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
  ServerProcess server(dir_.path(), {"--listen", address, "--insecure"});
  const int status = server.Wait();
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(server.Log(), HasSubstr(address + " is in use: another process listens there"));
  EXPECT_THAT(server.Log(), testing::Not(HasSubstr(".cc:")));
  EXPECT_THAT(server.Log(), HasSubstr("next: end the process that listens there"));
  // So is that of the metrics; and neither start has left a database.
  ServerProcess metrics(dir_.path(), {"--metrics-address", address});
  EXPECT_EQ(WEXITSTATUS(metrics.Wait()), 1);
  EXPECT_THAT(metrics.Log(), HasSubstr("metrics: " + address + " is in use"));
  EXPECT_EQ(Files(), std::vector<std::string>{"log"});
}

TEST_F(ServerProcessTest, AFileThatIsNoDatabaseStaysAsItIs) {
  std::ofstream(dir_.path() / "ca.crt") << "-----BEGIN CERTIFICATE-----\n"
                                        << std::string(9000, 'x');
  ServerProcess server(dir_.path(), {}, "ca.crt");
  EXPECT_EQ(WEXITSTATUS(server.Wait()), 1);
  EXPECT_THAT(server.Log(), HasSubstr("next: "));
  EXPECT_EQ(Files(), (std::vector<std::string>{"ca.crt", "log"}));
}

TEST_F(ServerProcessTest, ASecondServerOnTheDatabaseSaysWhoHasIt) {
  ServerProcess server(dir_.path());
  server.WaitReady();
  TempDir other_dir;
  ServerProcess second(other_dir.path(), {}, dir_.path() / "jobs.db");
  const int status = second.Wait();
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(second.Log(), HasSubstr("is locked by another process"));
}

TEST_F(ServerProcessTest, ASecondServerOnTheSameSocketLeavesTheFirstAlone) {
  ServerProcess server(dir_.path());
  server.WaitReady();
  TempDir other_dir;
  ServerProcess second(other_dir.path(), {"--listen", Address()});
  const int status = second.Wait();
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(second.Log(), HasSubstr("in use"));
  RpcClient client(Address());
  EXPECT_EQ(AskHealth(client, ""), 1);
}

}  // namespace
}  // namespace latentforge::service
