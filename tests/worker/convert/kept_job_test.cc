// What jobs leave for later ones on the same model and texts: statistics of the method low_rank,
// and the original's figures with any method.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "tests/worker/convert/run_job.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

// Two layers; 8 sequences of 32 calibration tokens; 3 windows of 32. So few tokens all go back.
constexpr int64_t kCalibrationTokens = 8 * 32;
constexpr int64_t kFisherTokens = kCalibrationTokens;
constexpr int64_t kWindowTokens = 3 * 32;

// What a job did itself.
struct Work {
  int64_t calibrated = 0;
  int64_t evaluated = 0;
};

class KeptJobTest : public testing::Test {
 protected:
  KeptJobTest() : job_("kept_job") { Use("ROOT_COVARIANCE", 0.3); }

  void Use(const std::string& preconditioner, double ratio) {
    job_.spec["method"] = "METHOD_LOW_RANK";
    job_.spec["budget"] = {{"parameterRatio", ratio}};
    job_.spec["factorization"] = {{"preconditioner", "PRECONDITIONER_" + preconditioner}};
  }

  // A job with a work folder and an output of its own.
  Work Run() {
    fs::remove_all(job_.work());
    fs::remove_all(job_.out());
    outcome_ = RunJob(job_);
    EXPECT_TRUE(outcome_.status.ok()) << outcome_.status;
    return WorkOf(outcome_);
  }

  static Work WorkOf(const Outcome& outcome) {
    Work work;
    for (const Json& event : outcome.events) {
      if (!event.contains("phaseFinished")) continue;
      const Json& finished = event["phaseFinished"];
      const int64_t tokens = std::stoll(finished.value("tokens", std::string("0")));
      if (finished["phase"] == "PHASE_CALIBRATING") work.calibrated = tokens;
      if (finished["phase"] == "PHASE_EVALUATING") work.evaluated = tokens;
    }
    return work;
  }

  Json Report() const { return ParseJson(ReadFile(job_.out() / "report.json").value()).value(); }

  std::string Lines() const {
    std::string lines;
    for (const Json& event : outcome_.events) {
      if (event.contains("log")) lines += event["log"].value("text", "") + "\n";
    }
    return lines;
  }

  TinyJob job_;
  Outcome outcome_;
};

TEST_F(KeptJobTest, AnotherRatioCostsOneEvaluationAndGivesTheSameBytes) {
  Work work = Run();
  EXPECT_EQ(work.calibrated, kCalibrationTokens);
  EXPECT_EQ(work.evaluated, 2 * kWindowTokens);
  const Json first = Report();

  Use("ROOT_COVARIANCE", 0.2);
  work = Run();
  EXPECT_EQ(work.calibrated, 0);
  EXPECT_EQ(work.evaluated, kWindowTokens);
  EXPECT_EQ(Report()["perplexity"]["base"], first["perplexity"]["base"]);
  EXPECT_THAT(Lines(), HasSubstr("an earlier job has calibrated this model on these tokens"));
  EXPECT_THAT(Lines(), HasSubstr("an earlier job has measured the original on these windows"));
  const std::string shared = ArtifactDigest(job_.out());
  const Json perplexity = Report()["perplexity"];

  // The same job for itself alone.
  fs::remove_all(job_.root / "statistics");
  EXPECT_EQ(Run().calibrated, kCalibrationTokens);
  EXPECT_EQ(ArtifactDigest(job_.out()), shared);
  EXPECT_EQ(Report()["perplexity"], perplexity);
}

TEST_F(KeptJobTest, LayoutsAndJointModesShareOneCalibrationAndMoreServesLess) {
  Use("DIAGONAL_HESSIAN", 0.3);  // needs the widest covariance
  EXPECT_EQ(Run().calibrated, kCalibrationTokens);
  for (const char* preconditioner : {"IDENTITY", "DIAGONAL_L1", "DIAGONAL_L2", "COVARIANCE"}) {
    Use(preconditioner, 0.3);
    EXPECT_EQ(Run().calibrated, 0) << preconditioner;
  }
  Use("ROOT_COVARIANCE", 0.3);
  for (const char* mode : {"JOINT_MODE_JOINT", "JOINT_MODE_LOCAL"}) {
    for (const char* layout : {"FACTOR_LAYOUT_PLAIN", "FACTOR_LAYOUT_BLOCK_IDENTITY"}) {
      job_.spec["lowRank"] = {{"layout", layout}, {"queryKey", mode}, {"valueOutput", mode}};
      EXPECT_EQ(Run().calibrated, 0) << mode << " " << layout;
    }
  }
  job_.spec.erase("lowRank");
  // The pass back is the Fisher information's alone.
  Use("FISHER", 0.3);
  EXPECT_EQ(Run().calibrated, kFisherTokens);
  EXPECT_EQ(Run().calibrated, 0);
  fs::remove_all(job_.root / "statistics");
  EXPECT_EQ(Run().calibrated, kCalibrationTokens + kFisherTokens);
}

TEST_F(KeptJobTest, LessDoesNotServeMore) {
  Run();
  Use("COVARIANCE", 0.3);
  EXPECT_EQ(Run().calibrated, kCalibrationTokens);
  Use("ROOT_COVARIANCE", 0.3);
  EXPECT_EQ(Run().calibrated, 0);
}

TEST_F(KeptJobTest, AnythingElseIsMeasuredAnew) {
  Run();
  const auto expect_anew = [&](const char* what, bool calibration, bool evaluation) {
    const Work work = Run();
    EXPECT_EQ(work.calibrated > 0, calibration) << what;
    EXPECT_EQ(work.evaluated, (evaluation ? 2 : 1) * kWindowTokens) << what;
  };
  job_.spec["calibration"]["seed"] = "6";
  expect_anew("other tokens", true, false);
  ASSERT_TRUE(WriteFileAtomic(job_.root / "eval.txt", RandomText(200, 9)).ok());
  expect_anew("another evaluation text", false, true);
  job_.spec["dtype"] = "DATA_TYPE_BFLOAT16";
  expect_anew("another type", true, true);
  ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(job_.root / "model", {.seed = 77}).ok());
  ASSERT_TRUE(WriteFileAtomic(job_.root / "model" / "tokenizer.json", TinyTokenizerJson()).ok());
  expect_anew("other weights", true, true);
}

TEST_F(KeptJobTest, TheMethodKvLatentUsesTheFiguresOfTheOriginalToo) {
  Run();
  const Json base = Report()["perplexity"]["base"];
  job_.spec.erase("method");
  job_.spec["budget"] = {{"kvBudget", 0.5}};
  job_.spec.erase("factorization");
  const Work work = Run();
  EXPECT_GT(work.calibrated, 0);
  EXPECT_EQ(work.evaluated, kWindowTokens);
  EXPECT_EQ(Report()["perplexity"]["base"], base);
}

TEST_F(KeptJobTest, DamageIsRepairedAndAFolderThatCannotBeWrittenIsNoProblem) {
  Run();
  const fs::path kept = job_.root / "statistics";
  int damaged = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kept)) {
    if (!entry.is_regular_file() || entry.path().filename() == "1.safetensors") continue;
    std::string bytes = ReadFile(entry.path()).value();
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x01);
    ASSERT_TRUE(WriteFileAtomic(entry.path(), bytes).ok());
    ++damaged;
  }
  EXPECT_EQ(damaged, 3);  // the first layer's moments, the index, the original's figures
  Work work = Run();
  EXPECT_EQ(work.calibrated, kCalibrationTokens);
  EXPECT_EQ(work.evaluated, 2 * kWindowTokens);
  work = Run();
  EXPECT_EQ(work.calibrated, 0);
  EXPECT_EQ(work.evaluated, kWindowTokens);

  fs::remove_all(kept);
  ASSERT_TRUE(WriteFileAtomic(kept, "a file in its place").ok());
  work = Run();
  EXPECT_EQ(work.calibrated, kCalibrationTokens);
  EXPECT_THAT(Lines(), HasSubstr("are not kept for later jobs"));
}

}  // namespace
}  // namespace latentforge::convert
