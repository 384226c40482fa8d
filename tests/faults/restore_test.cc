// T30: a database is put back that is older than the outputs.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/store/sqlite_db.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {
namespace {

namespace fs = std::filesystem;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::string Work(int number) {
  return absl::StrCat(R"({"wait_for":"@/go)", number, R"("},{"publish":"@/artifact)", number,
                      R"(","log":"@/artifact)", number,
                      R"(.log"},{"event":{"result":{"artifactUri":"file:///artifact)", number,
                      R"("}}})");
}

class RestoreTest : public testing::Test {
 protected:
  void Go(int number) { std::ofstream(cluster_.Path(absl::StrCat("go", number))) << "go\n"; }

  // As docs/operations.md says.
  void BackUp() {
    auto database =
        service::Database::Open(cluster_.Path("jobs.db"), service::Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok()) << database.status();
    const absl::Status status =
        database->Execute(absl::StrCat("VACUUM INTO '", cluster_.Path("backup.db").string(), "'"));
    EXPECT_TRUE(status.ok()) << status;
  }
  void Restore() {
    cluster_.worker("w1").Signal(SIGTERM);
    cluster_.worker("w1").Wait();
    cluster_.SignalServer(SIGTERM);
    cluster_.AwaitServer();
    for (const char* name : {"jobs.db", "jobs.db-wal", "jobs.db-shm"})
      fs::remove(cluster_.Path(name));
    fs::copy_file(cluster_.Path("backup.db"), cluster_.Path("jobs.db"));
    cluster_.StartServer();
    cluster_.StartWorker("w1");
  }

  Cluster cluster_;
};

TEST_F(RestoreTest, T30JobsPastTheBackUpRunAgainAndFindTheirArtifacts) {
  cluster_.StartWorker("w1");
  const std::string ended = cluster_.Submit({Work(1)});
  Go(1);
  cluster_.AwaitEnd(ended);
  const std::string running = cluster_.Submit({Work(2)});
  cluster_.AwaitState(running, v1::JOB_STATE_RUNNING);
  const std::string waiting = cluster_.Submit({Work(3)});
  BackUp();
  Go(2);
  Go(3);
  cluster_.AwaitEnd(running);
  cluster_.AwaitEnd(waiting);
  const std::string forgotten = cluster_.Submit({Work(4)});
  Go(4);
  cluster_.AwaitEnd(forgotten);
  const v1::Job before = cluster_.Get(ended);

  Restore();
  EXPECT_EQ(cluster_.Get(ended).SerializeAsString(), before.SerializeAsString());
  for (const std::string& job : {running, waiting})
    EXPECT_EQ(cluster_.AwaitEnd(job).status().state(), v1::JOB_STATE_SUCCEEDED);
  std::vector<std::string> names;
  for (const v1::Job& job : cluster_.List(/*active=*/false)) names.push_back(job.name());
  EXPECT_THAT(names, UnorderedElementsAre(ended, running, waiting));
  // Each artifact is the one that was made first.
  for (int number = 1; number <= 4; ++number) {
    const std::string artifact = absl::StrCat("artifact", number);
    EXPECT_THAT(Lines(cluster_.Path(artifact + ".log")), SizeIs(1)) << artifact;
    EXPECT_EQ(Lines(cluster_.Path(artifact) / "manifest"), Lines(cluster_.Path(artifact + ".log")));
  }
}

}  // namespace
}  // namespace latentforge::faults
