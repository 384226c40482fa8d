// T11: no room left, on a worker's scratch and below the database. The process has a small tmpfs of
// its own there, in a mount namespace that ends with it.
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/rpc_client.h"
#include "tests/service/temp_dir.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {
namespace {

namespace fs = std::filesystem;
using service::RpcClient;
using testing::HasSubstr;

// What starts a program that sees a disk of this size at `folder`, with a file `filler` on it that
// leaves `free` bytes. Needs root, or a kernel that gives users namespaces of their own: where it
// has neither, the program does not start and the test fails.
std::vector<std::string> WithSmallDisk(const fs::path& folder, int64_t bytes, int64_t free) {
  std::vector<std::string> command = {"/usr/bin/unshare", "--mount"};
  if (geteuid() != 0) command.push_back("--map-root-user");
  command.insert(
      command.end(),
      {"sh", "-euc",
       absl::StrCat("mount -t tmpfs -o size=", bytes, " none ", folder.string(), "; head -c ",
                    bytes - free, " /dev/zero >", (folder / "filler").string(), "; exec \"$@\""),
       "sh"});
  return command;
}

// The folder as the process sees it.
fs::path Seen(const Daemon& process, const fs::path& folder) {
  return absl::StrCat("/proc/", process.pid(), "/root", folder.string());
}

TEST(DiskFullTest, T11AFullScratchIsNamedRepeatedAndGoneOnWithOnceThereIsRoom) {
  TempDir disk;
  Cluster cluster({.server_flags = {"--max-attempts", "100"}});
  Daemon& worker = cluster.StartWorker(
      "w1", {.scratch = disk.path(), .launcher = WithSmallDisk(disk.path(), 256 << 10, 0)});
  const std::string job = cluster.Submit({R"({"event":{"result":{"artifactUri":"file:///out"}}})"});
  EXPECT_TRUE(Await([&] { return cluster.Get(job).status().error().reason() == "SCRATCH_FULL"; }));
  const v1::ConversionError error = cluster.Get(job).status().error();
  EXPECT_EQ(error.error_class(), v1::ERROR_CLASS_RESOURCE);
  EXPECT_TRUE(error.retryable());
  EXPECT_THAT(error.message(), HasSubstr(disk.path().string()));
  fs::remove(Seen(worker, disk.path()) / "filler");
  const v1::Job ended = cluster.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_GT(ended.status().attempt(), 1);
  EXPECT_TRUE(Await([&] {
    return !fs::exists(Seen(worker, disk.path()) / fs::path(job).filename());
  })) << "the space was not given back";
}

TEST(DiskFullTest, T11AFullDatabaseRefusesNewJobsAndKeepsTheOthers) {
  TempDir disk, files;
  Cluster cluster({.databases = {(disk.path() / "jobs.db").string()},
                   .server_launcher = WithSmallDisk(disk.path(), 2 << 20, 1 << 20)});
  RpcClient client(cluster.address());
  std::vector<std::string> acknowledged;
  grpc::Status status;
  for (int i = 0; status.ok() && i < 5000; ++i) {
    v1::CreateJobResponse response;
    status = client.Create(service::TinyJob(files.path(), i), &response);
    if (status.ok()) acknowledged.push_back(response.job().name());
  }
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(service::ReasonOf(status), "STORE_FULL");
  EXPECT_GT(acknowledged.size(), 10u);
  EXPECT_EQ(service::AskHealth(client, ""), 1);
  for (const std::string& job : acknowledged) EXPECT_EQ(client.StateOf(job), v1::JOB_STATE_QUEUED);
  fs::remove(Seen(cluster.server(), disk.path()) / "filler");
  v1::CreateJobResponse response;
  status = client.Create(service::TinyJob(files.path(), 5001), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(cluster.List(/*active=*/false).size(), acknowledged.size() + 1);
}

}  // namespace
}  // namespace latentforge::faults
