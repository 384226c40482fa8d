#include "worker/convert/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/match.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/kv_budget.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/evaluate_command.h"
#include "worker/convert/work_dir.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(PipelineTest, ConvertsEndToEnd) {
  const TinyJob job("end_to_end");
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  for (size_t i = 0; i < outcome.events.size(); ++i) {
    EXPECT_EQ(outcome.events[i]["sequence"], std::to_string(i + 1));
  }
  const auto order = ElementsAre("PHASE_FETCHING", "PHASE_CALIBRATING", "PHASE_FACTORIZING",
                                 "PHASE_EVALUATING", "PHASE_PUBLISHING");
  EXPECT_THAT(Phases(outcome, "phaseStarted"), order);
  EXPECT_THAT(Phases(outcome, "phaseFinished"), order);
  double percent = 0;
  for (const Json& event : outcome.events) {
    if (!event.contains("progress")) continue;
    EXPECT_GE(event["progress"]["percent"].get<double>(),
              event["progress"]["phase"] == "PHASE_FETCHING" ? 0 : percent);
    if (event["progress"]["phase"] != "PHASE_FETCHING") percent = event["progress"]["percent"];
  }
  EXPECT_EQ(percent, 100);

  const Json result = outcome.events.back().at("result");
  // 2 layers of 16 + 16 values of four bytes.
  EXPECT_EQ(result["kvBytesPerTokenBase"], "256");
  EXPECT_EQ(result["kvBytesPerTokenConverted"], "128");
  EXPECT_EQ(result["manifestSha256"], Sha256File(job.out() / "manifest.json").value());
  const auto artifact = checkpoint::Checkpoint::Open(job.out());
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  ASSERT_TRUE(artifact->config().latent.has_value());
  // The default: one latent for K and V, ranks by predicted loss, the budget spent.
  EXPECT_TRUE(artifact->config().latent->joint);
  EXPECT_EQ(artifact->config().latent->ranks[0].joint + artifact->config().latent->ranks[1].joint,
            32);

  // What was reported is what was shipped: the same windows through the artifact.
  const EvaluateRequest request{.model = job.out(),
                                .text = job.root / "eval.txt",
                                .windows = 3,
                                .window_length = 32,
                                .dtype = "float32",
                                .device = "cpu",
                                .threads = 1};
  const auto evaluated = Evaluate(request, nullptr, StopToken(), StepClock());
  ASSERT_TRUE(evaluated.ok()) << evaluated.status();
  EXPECT_DOUBLE_EQ((*evaluated)["perplexity"].get<double>(),
                   result["perplexityConverted"].get<double>());
  EXPECT_EQ((*evaluated)["kv_bytes_per_token"], 128);

  const Json report = ParseJson(ReadFile(job.out() / "report.json").value()).value();
  EXPECT_EQ(report["perplexity"]["base"], result["perplexityBase"]);
  EXPECT_EQ(report["perplexity"]["converted"], result["perplexityConverted"]);
  EXPECT_EQ(report["layers"].size(), 2u);
  EXPECT_GT(report["layers"][0]["relative_error_k"].get<double>(), 0);
  EXPECT_THAT(job.Outputs(), ElementsAre("out"));
}

TEST(PipelineTest, AnEvaluationRunsFromNothingToAllAndWarnsOfLongWindows) {
  const TinyJob job("evaluate_alone", {.max_position_embeddings = 16});
  const EvaluateRequest request{.model = job.root / "model",
                                .text = job.root / "eval.txt",
                                .windows = 3,
                                .window_length = 32,
                                .dtype = "float32",
                                .device = "cpu",
                                .threads = 1};
  const fs::path path = job.root / "events.jsonl";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const StepClock clock;
  EventWriter writer(fd.get(), clock);
  ASSERT_TRUE(Evaluate(request, &writer, StopToken(), clock).ok());
  const std::vector<Json> events = ReadEvents(path);
  EXPECT_EQ(events[0]["log"]["text"],
            "windows of 32 tokens are longer than the model's context of 16");
  EXPECT_EQ(events[1]["progress"]["percent"], 0.0);
  EXPECT_EQ(events.back()["progress"]["percent"], 100.0);
}

TEST(PipelineTest, ThePercentageRisesFromNothingToAllAlsoWithoutACalibration) {
  TinyJob job("percentage");
  for (const char* out : {"out", "out_2"}) {
    job.spec["output"]["uri"] = (job.root / out).string();
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    double last = 0;
    for (const Json& event : outcome.events) {
      if (!event.contains("progress")) continue;
      const double percent = event["progress"]["percent"].get<double>();
      EXPECT_GE(percent, last) << WriteJson(event);
      last = percent;
    }
    EXPECT_EQ(last, 100);
  }
}

TEST(PipelineTest, TheSameJobGivesTheSameBytes) {
  const TinyJob first("same_bytes_1");
  const TinyJob second("same_bytes_2");
  ASSERT_TRUE(RunJob(first).status.ok());
  ASSERT_TRUE(RunJob(second).status.ok());
  EXPECT_EQ(ArtifactDigest(first.out()), ArtifactDigest(second.out()));
  TinyJob other("same_bytes_3");
  other.spec["calibration"]["seed"] = "6";
  ASSERT_TRUE(RunJob(other).status.ok());
  EXPECT_NE(ArtifactDigest(first.out()), ArtifactDigest(other.out()));
}

// Stops an attempt at its first event, its second, and so on; the next attempt has
// to end with the bytes of an attempt that nobody stopped.
TEST(PipelineTest, StopsAnywhereAndGoesOn) {
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

// The number of the first event of a whole job whose progress has this detail.
int EventWithDetail(const std::vector<Json>& events, const char* detail) {
  int at = 0;
  for (const Json& event : events) {
    ++at;
    if (event.contains("progress") && event["progress"]["detail"] == detail) break;
  }
  return at;
}

TEST(PipelineTest, FinishedLayersAreNotDoneAgain) {
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

// A restart of the machine leaves unsynced files with their names and without their blocks.
TEST(PipelineTest, FilesLostWithTheMachineAreMadeAgain) {
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
    const fs::path path = job.work() / "calibrate" / name;
    ASSERT_TRUE(WriteFileAtomic(path, std::string(fs::file_size(path), '\0')).ok());
    ++spoilt;
  }
  EXPECT_GT(spoilt, 0);
  Json state = ParseJson(ReadFile(job.work() / "state.json").value()).value();
  state["boot_id"] = "another";
  ASSERT_TRUE(WriteFileAtomic(job.work() / "state.json", WriteJson(state)).ok());
  const Outcome second = RunJob(job);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
}

TEST(PipelineTest, AnAttemptThatDiedAfterTheRenameIsFoundPublished) {
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

TEST(PipelineTest, FullRanksChangeNothing) {
  TinyJob job("full_ranks");
  job.spec["budget"]["kvBudget"] = 1.0;
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json& result = outcome.events.back()["result"];
  EXPECT_EQ(result["perplexityBase"], result["perplexityConverted"]);
  EXPECT_EQ(result["kvBytesPerTokenBase"], result["kvBytesPerTokenConverted"]);
}

TEST(PipelineTest, EveryPreconditionerAndAllocationKeepsTheBudget) {
  const std::pair<const char*, const char*> settings[] = {
      {"PRECONDITIONER_IDENTITY", "RANK_ALLOCATION_UNIFORM"},
      {"PRECONDITIONER_DIAGONAL_L1", "RANK_ALLOCATION_CARE"},
      {"PRECONDITIONER_DIAGONAL_L2", "RANK_ALLOCATION_CARE_CODE"},
      {"PRECONDITIONER_DIAGONAL_HESSIAN", "RANK_ALLOCATION_UNIFORM"},
      {"PRECONDITIONER_COVARIANCE", "RANK_ALLOCATION_CARE"},
      {"PRECONDITIONER_ROOT_COVARIANCE", "RANK_ALLOCATION_CARE_CODE"},
      {"PRECONDITIONER_FISHER", "RANK_ALLOCATION_CARE"},
      {"PRECONDITIONER_FISHER", "RANK_ALLOCATION_UNIFORM"},
      {"PRECONDITIONER_FISHER", "RANK_ALLOCATION_GLOBAL"}};
  for (const auto& [preconditioner, allocation] : settings) {
    TinyJob job("settings",
                {.family = checkpoint::Family::kQwen2, .dtype = checkpoint::DType::kBF16});
    job.spec["budget"]["kvBudget"] = 0.4;
    job.spec["factorization"] = {{"preconditioner", preconditioner}, {"allocation", allocation}};
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << preconditioner << " " << outcome.status;
    const Json& result = outcome.events.back()["result"];
    EXPECT_EQ(result["kvBytesPerTokenBase"], "128");
    EXPECT_LE(std::stoi(result["kvBytesPerTokenConverted"].get<std::string>()), 51);
  }
}

TEST(PipelineTest, GivenRanksAreUsed) {
  TinyJob job("profile");
  job.spec["factorization"] = {{"allocation", "RANK_ALLOCATION_PROFILE"},
                               {"rankProfile",
                                {{"layers",
                                  {{{"layer", 0}, {"rankK", 16}, {"rankV", 3}},
                                   {{"layer", 1}, {"rankK", 4}, {"rankV", 9}}}}}}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.events.back()["result"]["rankProfile"]["layers"][0]["rankK"], 16);
  job.spec["output"]["uri"] = (job.root / "out2").string();
  job.spec["budget"]["kvBudget"] = 0.49;
  EXPECT_EQ(DescribeError(RunJob(job).status).reason, "RANK_OUT_OF_RANGE");
}

TEST(PipelineTest, JointRanksCanBeGiven) {
  TinyJob job("joint_profile");
  job.spec["factorization"] = {
      {"allocation", "RANK_ALLOCATION_PROFILE"},
      {"rankProfile",
       {{"layers", {{{"layer", 0}, {"rankKv", 25}}, {{"layer", 1}, {"rankKv", 7}}}}}}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.events.back()["result"]["rankProfile"]["layers"][0]["rankKv"], 25);
  const auto artifact = checkpoint::Checkpoint::Open(job.out());
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(artifact->config().latent->ranks[1].joint, 7);
}

TEST(PipelineTest, RanksAreMultiplesWhereAskedFor) {
  TinyJob job("multiple");
  job.spec["factorization"] = {{"rankMultiple", 8}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  int64_t values = 0;
  for (const Json& layer : outcome.events.back()["result"]["rankProfile"]["layers"]) {
    EXPECT_EQ(layer["rankKv"].get<int64_t>() % 8, 0);
    values += layer["rankKv"].get<int64_t>();
  }
  EXPECT_EQ(values, 32);
}

TEST(PipelineTest, UniformRanksAreMultiplesToo) {
  for (const char* preconditioner : {"PRECONDITIONER_FISHER", "PRECONDITIONER_ROOT_COVARIANCE"}) {
    TinyJob job("uniform_multiple");
    job.spec["budget"]["kvBudget"] = 0.7;  // 11 of 16, 22 of 32
    job.spec["factorization"] = {{"preconditioner", preconditioner},
                                 {"allocation", "RANK_ALLOCATION_UNIFORM"},
                                 {"latent", "LATENT_LAYOUT_SEPARATE"},
                                 {"rankMultiple", 4}};
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    for (const Json& layer : outcome.events.back()["result"]["rankProfile"]["layers"]) {
      EXPECT_EQ(layer["rankK"], 8) << preconditioner;
      EXPECT_EQ(layer["rankV"], 8) << preconditioner;
    }
  }
}

TEST(PipelineTest, OneJointValueALayerIsEnough) {
  TinyJob job("smallest");
  job.spec["budget"]["kvBudget"] = 1.0 / 32;
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.events.back()["result"]["kvBytesPerTokenConverted"], "8");
}

TEST(PipelineTest, SeparateLatentsOfTheFisherInformation) {
  TinyJob job("separate");
  job.spec["factorization"] = {{"latent", "LATENT_LAYOUT_SEPARATE"}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const auto artifact = checkpoint::Checkpoint::Open(job.out());
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_FALSE(artifact->config().latent->joint);
  int64_t values = 0;
  for (const checkpoint::LayerRanks& ranks : artifact->config().latent->ranks) {
    values += ranks.total();
  }
  EXPECT_EQ(values, 32);
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

TEST(PipelineTest, AnotherBudgetNeedsNoCalibration) {
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

// Stops a job when `phase` begins.
void StopBefore(const TinyJob& job, const std::vector<Json>& events, const char* phase) {
  int at = 0;
  for (const Json& event : events) {
    ++at;
    if (event.contains("phaseStarted") && event["phaseStarted"]["phase"] == phase) break;
  }
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status)) << phase;
}

TEST(PipelineTest, StatisticsAreKeptByTheNextAttemptToo) {
  const std::vector<Json> events = RunJob(TinyJob("keep_later_count")).events;
  const TinyJob job("keep_later");
  StopBefore(job, events, "PHASE_FACTORIZING");
  const fs::path folder = job.root / "statistics";
  ASSERT_EQ(ListDirectory(folder)->size(), 1u);
  fs::remove_all(folder);  // as if the attempt had died before it kept them
  const Outcome second = RunJob(job);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(CalibratedTokens(second), 0);
  EXPECT_EQ(ListDirectory(folder)->size(), 1u);
}

TEST(PipelineTest, SavedRanksThatCannotBeAreChosenAgain) {
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
TEST(PipelineTest, WrongStatisticsAreMadeAgain) {
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

TEST(PipelineTest, HeldBackTextIsSaid) {
  TinyJob job("held_back");
  job.spec["evaluation"].erase("corpus");
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  std::vector<std::string> logs;
  for (const Json& event : outcome.events) {
    if (event.contains("log")) logs.push_back(event["log"]["text"]);
  }
  EXPECT_THAT(logs, Contains(HasSubstr("the last 96 tokens")));
  const Json report = ParseJson(ReadFile(job.out() / "report.json").value()).value();
  EXPECT_THAT(WriteJson(report["evaluation"]), HasSubstr("held back from the end of file://"));
}

TEST(PipelineTest, OneAttemptAtATime) {
  const TinyJob job("locked");
  const auto held = WorkDir::Open(job.work());
  ASSERT_TRUE(held.ok()) << held.status();
  const Outcome outcome = RunJob(job);
  EXPECT_EQ(DescribeError(outcome.status).reason, "WORK_DIR_IN_USE");
  EXPECT_EQ(outcome.events.back()["error"]["retryable"], true);
}

}  // namespace
}  // namespace latentforge::convert
