// What later attempts of a job, and later jobs, find of earlier ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "base/sha256.h"
#include "base/shared_deadline.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/work_dir.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The number of the first event of a whole job whose progress has this detail.
int EventWithDetail(const std::vector<Json>& events, const char* detail) {
  int at = 0;
  for (const Json& event : events) {
    ++at;
    if (event.contains("progress") && event["progress"]["detail"] == detail) break;
  }
  return at;
}

// As a restart of the machine leaves a file that was not synced: its name without its blocks.
void Spoil(const fs::path& path) {
  ASSERT_TRUE(WriteFileAtomic(path, std::string(fs::file_size(path), '\0')).ok());
}

void SayTheMachineRestarted(const TinyJob& job) {
  Json state = ParseJson(ReadFile(job.work() / "state.json").value()).value();
  state["boot_id"] = "another";
  ASSERT_TRUE(WriteFileAtomic(job.work() / "state.json", WriteJson(state)).ok());
}

// Stops a job when `phase` begins.
void StopBefore(const TinyJob& job, const std::vector<Json>& events, const char* phase) {
  int at = 0;
  for (const Json& event : events) {
    ++at;
    if (event.contains("phaseStarted") && event["phaseStarted"]["phase"] == phase) break;
  }
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status)) << phase;
}

// Stops an attempt at its first event, its second, and so on; the next attempt has
// to end with the bytes of an attempt that nobody stopped.
TEST(ResumeTest, StopsAnywhereAndGoesOn) {
  const TinyJob whole("stop_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const std::string expected = ArtifactDigest(whole.out());
  const int events = int(reference.events.size());
  int stopped = 0;
  for (int stop_at = 1; stop_at <= events; ++stop_at) {
    const TinyJob job("stop");
    const Outcome first = RunJob(job, stop_at);
    if (absl::IsCancelled(first.status)) {
      ++stopped;
      EXPECT_THAT(job.Outputs(), IsEmpty()) << "stopped at event " << stop_at;
      EXPECT_FALSE(first.events.back().contains("error"));
      EXPECT_EQ(ExitCode(first.status), 5);
    } else {
      ASSERT_TRUE(first.status.ok()) << first.status;
    }
    const Outcome second = RunJob(job);
    ASSERT_TRUE(second.status.ok()) << "stopped at event " << stop_at << ": " << second.status;
    EXPECT_EQ(ArtifactDigest(job.out()), expected) << "stopped at event " << stop_at;
    EXPECT_EQ(second.events.back()["result"]["perplexityConverted"],
              reference.events.back()["result"]["perplexityConverted"]);
    EXPECT_THAT(job.Outputs(), ElementsAre("out"));
  }
  EXPECT_GT(stopped, events / 2);
}

TEST(ResumeTest, FinishedLayersAreNotDoneAgain) {
  const TinyJob job("resume");
  const std::vector<Json> events = RunJob(TinyJob("resume_count")).events;
  const int at = EventWithDetail(events, "backward, layer 1 of 2");
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status));
  EXPECT_TRUE(fs::exists(job.work() / "calibrate" / "loss.1.safetensors"));
  const auto before = fs::last_write_time(job.work() / "calibrate" / "loss.1.safetensors");
  // The next attempt: stops when factorisation begins, so that the file is still there.
  int next = 0;
  for (const Json& event : events) {
    ++next;
    if (event.contains("phaseStarted") && event["phaseStarted"]["phase"] == "PHASE_FACTORIZING")
      break;
  }
  const Outcome second = RunJob(job, next - 4);
  EXPECT_EQ(fs::last_write_time(job.work() / "calibrate" / "loss.1.safetensors"), before);
  EXPECT_EQ(second.events[0]["phaseStarted"]["resumed"], true);
}

TEST(ResumeTest, FilesLostWithTheMachineAreMadeAgain) {
  const TinyJob whole("restart_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const TinyJob job("restart");
  const int at = EventWithDetail(reference.events, "backward, layer 2 of 2");
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status));
  int spoilt = 0;
  const std::vector<std::string> names = ListDirectory(job.work() / "calibrate").value();
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".bin")) continue;
    Spoil(job.work() / "calibrate" / name);
    ++spoilt;
  }
  EXPECT_GT(spoilt, 0);
  SayTheMachineRestarted(job);
  const Outcome second = RunJob(job);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
}

TEST(ResumeTest, FactorsLostWithTheMachineAreMadeAgain) {
  const TinyJob whole("factors_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const TinyJob job("factors");
  const int at = EventWithDetail(reference.events, "layer 2 of 2");
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status));
  const fs::path path = job.work() / "factorize/layer.0.safetensors";
  ASSERT_TRUE(fs::exists(path));
  Spoil(path);
  SayTheMachineRestarted(job);
  const Outcome second = RunJob(job);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
}

TEST(ResumeTest, AnAttemptThatDiedAfterTheRenameIsFoundPublished) {
  const TinyJob job("published");
  const Outcome first = RunJob(job);
  ASSERT_TRUE(first.status.ok()) << first.status;
  const Outcome again = RunJob(job);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.events.back()["result"]["manifestSha256"],
            first.events.back()["result"]["manifestSha256"]);

  // A damaged artifact is not taken for a published one.
  ASSERT_TRUE(WriteFileAtomic(job.out() / "config.json", "{}").ok());
  const Outcome damaged = RunJob(job);
  EXPECT_EQ(DescribeError(damaged.status).reason, "ARTIFACT_CORRUPT") << damaged.status;
}

TEST(ResumeTest, AnArtifactOfTheJobIsFoundFromAnotherScratchFolderToo) {
  const TinyJob job("published_elsewhere");
  const Outcome first = RunJob(job);
  ASSERT_TRUE(first.status.ok()) << first.status;
  ConversionFolders other = FoldersOf(job);
  other.work = job.root / "other_work";
  const Outcome again = RunJob(job, 0, other);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.events.back()["result"], first.events.back()["result"]);
  EXPECT_THAT(Phases(again, "phaseStarted"), testing::ElementsAre("PHASE_FETCHING"));

  // Another job's is in the way, before and after a look at the texts.
  TinyJob different = job;
  different.spec["budget"]["kvBudget"] = 0.6;
  EXPECT_EQ(DescribeError(RunJob(different, 0, other).status).reason, "OUTPUT_NOT_EMPTY");
  ASSERT_TRUE(WriteFileAtomic(job.root / "text.txt", RandomText(800, 9)).ok());
  EXPECT_EQ(DescribeError(RunJob(job, 0, other).status).reason, "OUTPUT_NOT_EMPTY");
}

TEST(ResumeTest, AnAttemptWhoseLeaseHasEndedPublishesNothing) {
  const TinyJob job("lease");
  ConversionFolders folders = FoldersOf(job);
  folders.lease = job.root / "lease";
  auto lease = SharedDeadline::Create(folders.lease);
  ASSERT_TRUE(lease.ok()) << lease.status();
  lease->Set(absl::Seconds(1));  // StepClock counts to more
  const Outcome late = RunJob(job, 0, folders);
  EXPECT_EQ(DescribeError(late.status).reason, "LEASE_LOST") << late.status;
  EXPECT_EQ(job.Outputs(), std::vector<std::string>());
  lease->Set(absl::Hours(1000));
  const Outcome again = RunJob(job, 0, folders);
  EXPECT_TRUE(again.status.ok()) << again.status;
  folders.lease = job.root / "nowhere";
  EXPECT_EQ(DescribeError(RunJob(job, 0, folders).status).reason, "SCRATCH_NOT_WRITABLE");
}

// Tokens that went through calibration.
int64_t CalibratedTokens(const Outcome& outcome) {
  for (const Json& event : outcome.events) {
    if (event.contains("phaseFinished") && event["phaseFinished"]["phase"] == "PHASE_CALIBRATING") {
      return std::stoll(event["phaseFinished"]["tokens"].get<std::string>());
    }
  }
  return -1;
}

TEST(ResumeTest, AnotherBudgetNeedsNoCalibration) {
  TinyJob job("statistics");
  ASSERT_TRUE(RunJob(job).status.ok());
  job.spec["budget"]["kvBudget"] = 0.3;
  job.spec["output"]["uri"] = (job.root / "out2").string();
  const Outcome second = RunJob(job);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(CalibratedTokens(second), 0);

  // The same bytes as with a calibration of its own.
  TinyJob alone("statistics_alone");
  alone.spec["budget"]["kvBudget"] = 0.3;
  ASSERT_TRUE(RunJob(alone).status.ok());
  const auto weights = [](const fs::path& folder) {
    return Sha256File(folder / "model.safetensors").value();
  };
  EXPECT_EQ(weights(job.root / "out2"), weights(alone.out()));

  // Another sampling of labels is another calibration; a damaged file is none.
  job.spec["calibration"]["seed"] = 99;
  job.spec["output"]["uri"] = (job.root / "out3").string();
  EXPECT_GT(CalibratedTokens(RunJob(job)), 0);
  for (const fs::directory_entry& file : fs::directory_iterator(job.root / "statistics")) {
    fs::resize_file(file.path(), 1000);
  }
  job.spec["output"]["uri"] = (job.root / "out4").string();
  EXPECT_GT(CalibratedTokens(RunJob(job)), 0);
}

TEST(ResumeTest, StatisticsAreKeptByTheNextAttemptToo) {
  const std::vector<Json> events = RunJob(TinyJob("keep_later_count")).events;
  const TinyJob job("keep_later");
  StopBefore(job, events, "PHASE_FACTORIZING");
  const fs::path folder = job.root / "statistics";
  ASSERT_EQ(ListDirectory(folder)->size(), 1u);
  fs::remove_all(folder);  // as if the attempt had died before it kept them
  const Outcome second = RunJob(job);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(CalibratedTokens(second), 0);
  EXPECT_EQ(ListDirectory(folder)->size(), 2u);  // and what the original gave
}

TEST(ResumeTest, SavedRanksThatCannotBeAreChosenAgain) {
  const TinyJob whole("ranks_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  for (const char* ranks :
       {R"({"layers":[{"rankKv":0},{"rankKv":32}]})", R"({"layers":[{"rankKv":33},{"rankKv":1}]})",
        R"({"layers":[{"rankK":8,"rankV":8},{"rankK":8,"rankV":8}]})", R"({"layers":[]})", "{"}) {
    const TinyJob job("ranks");
    StopBefore(job, reference.events, "PHASE_EVALUATING");
    ASSERT_TRUE(WriteFileAtomic(job.work() / "factorize" / "ranks.json", ranks).ok());
    fs::remove(job.work() / "factorize" / "layer.0.safetensors");
    const Outcome second = RunJob(job);
    ASSERT_TRUE(second.status.ok()) << ranks << ": " << second.status;
    EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
  }
}

// Well formed, but not statistics: the attempt fails for a reason that passes, and the next
// one makes them again.
TEST(ResumeTest, WrongStatisticsAreMadeAgain) {
  const TinyJob whole("wrong_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const TinyJob job("wrong");
  StopBefore(job, reference.events, "PHASE_FACTORIZING");
  fs::remove_all(job.root / "statistics");
  const fs::path path = job.work() / "calibrate" / "loss.1.safetensors";
  std::string bytes = ReadFile(path).value();
  const double nan = std::nan("");
  bytes.replace(bytes.size() - 8, 8, reinterpret_cast<const char*>(&nan), 8);
  ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
  const Outcome second = RunJob(job);
  EXPECT_EQ(DescribeError(second.status).reason, "CHECKPOINT_CORRUPT") << second.status;
  EXPECT_TRUE(DescribeError(second.status).retryable);
  EXPECT_THAT(std::string(second.status.message()), HasSubstr("loss.1.safetensors"));
  const Outcome third = RunJob(job);
  ASSERT_TRUE(third.status.ok()) << third.status;
  EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
}

TEST(ResumeTest, OneAttemptAtATime) {
  const TinyJob job("locked");
  const auto held = WorkDir::Open(job.work());
  ASSERT_TRUE(held.ok()) << held.status();
  const Outcome outcome = RunJob(job);
  EXPECT_EQ(DescribeError(outcome.status).reason, "WORK_DIR_IN_USE");
  EXPECT_EQ(outcome.events.back()["error"]["retryable"], true);
}

}  // namespace
}  // namespace latentforge::convert
