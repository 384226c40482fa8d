#include "client/job_file.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

constexpr char kJobFile[] = R"(# A job.
source: {uri: /models/m}
method: kv-latent
budget:
  kvBudget: 0.5
factorization:
  preconditioner: root-covariance
  damping: 0
calibration:
  corpora:
    - uri: /data/a.txt
      weight: 2
    - {uri: /data/b.jsonl, text_field: text}
  seed: 18446744073709551615
dtype: bf16
deadline: 90m
labels:
  team: search
)";

TEST(JobFileTest, FillsTheSpecification) {
  JobDraft draft;
  const absl::Status status = MergeJobFile(kJobFile, "job.yaml", &draft);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(draft.spec.source().uri(), "/models/m");
  EXPECT_EQ(draft.spec.method(), v1::METHOD_KV_LATENT);
  EXPECT_EQ(draft.spec.budget().kv_budget(), 0.5);
  EXPECT_EQ(draft.spec.factorization().preconditioner(), v1::PRECONDITIONER_ROOT_COVARIANCE);
  EXPECT_TRUE(draft.spec.factorization().has_damping());
  EXPECT_FALSE(draft.spec.factorization().has_alpha());
  ASSERT_EQ(draft.spec.calibration().corpora_size(), 2);
  EXPECT_EQ(draft.spec.calibration().corpora(0).weight(), 2);
  EXPECT_EQ(draft.spec.calibration().corpora(1).text_field(), "text");
  EXPECT_EQ(draft.spec.calibration().seed(), 18446744073709551615u);
  EXPECT_EQ(draft.spec.dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_EQ(draft.spec.deadline().seconds(), 5400);
  EXPECT_EQ(draft.labels.at("team"), "search");
}

TEST(JobFileTest, AMapOfTextsReplacesTheOneBefore) {
  JobDraft draft;
  ASSERT_TRUE(MergeJobFile("workerSelector: {zone: a, disk: nvme}", "job.yaml", &draft).ok());
  EXPECT_EQ(draft.spec.worker_selector().at("zone"), "a");
  EXPECT_EQ(draft.spec.worker_selector_size(), 2);
  ASSERT_TRUE(MergeJobFile("worker_selector:\n  zone: 7", "job.yaml", &draft).ok());
  EXPECT_EQ(draft.spec.worker_selector_size(), 1);
  EXPECT_EQ(draft.spec.worker_selector().at("zone"), "7");
  EXPECT_THAT(
      std::string(MergeJobFile("workerSelector: {zone: [a]}", "job.yaml", &draft).message()),
      HasSubstr("job.yaml:1:24: workerSelector: the value of zone is not a text"));
  ASSERT_TRUE(ApplySetting("workerSelector.zone=b", &draft).ok());
  ASSERT_TRUE(ApplySetting("workerSelector.example.org/pool=x", &draft).ok());
  EXPECT_EQ(draft.spec.worker_selector().at("zone"), "b");
  EXPECT_EQ(draft.spec.worker_selector().at("example.org/pool"), "x");
  EXPECT_EQ(draft.spec.worker_selector_size(), 2);
  ASSERT_TRUE(ApplySetting("workerSelector={zone: c}", &draft).ok());
  EXPECT_EQ(draft.spec.worker_selector_size(), 1);
  EXPECT_THAT(std::string(MergeJobFile("workerSelector: [a]", "job.yaml", &draft).message()),
              HasSubstr("workerSelector is not a mapping"));
}

TEST(JobFileTest, TakesTheJsonOfTheApi) {
  JobDraft draft;
  const absl::Status status = MergeJobFile(
      R"({"budget": {"kvBudget": 0.25}, "method": "METHOD_FULL_MLA", "deadline": "60s"})",
      "job.json", &draft);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(draft.spec.method(), v1::METHOD_FULL_MLA);
  EXPECT_EQ(draft.spec.deadline().seconds(), 60);
}

struct BadFile {
  const char* text;
  const char* message;
};

class BadJobFileTest : public testing::TestWithParam<BadFile> {};

TEST_P(BadJobFileTest, NamesPlaceAndThing) {
  JobDraft draft;
  const absl::Status status = MergeJobFile(GetParam().text, "job.yaml", &draft);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadJobFileTest,
    testing::Values(
        BadFile{"budget:\n  kvBugdet: 1\n",
                "job.yaml:2:3: \"kvBugdet\" is not a field of BudgetSpec (kvBudget, "
                "maxPerplexityRatio, parameterRatio); did you mean "
                "kvBudget?"},
        BadFile{"lables: {team: x}\n",
                "job.yaml:1:1: \"lables\" is not a field of JobSpec (labels, "},
        BadFile{"lables: {team: x}\n", "; did you mean labels?"},
        BadFile{"budget:\n  kvBudget: half\n",
                "job.yaml:2:13: kvBudget is \"half\", expected a finite number"},
        BadFile{"budget: {kvBudget: .inf}", "expected a finite number"},
        BadFile{"budget: {kvBudget: nan}", "expected a finite number"},
        BadFile{"threads: 1.5", "job.yaml:1:10: threads is \"1.5\", expected a 32-bit integer"},
        BadFile{"threads: 99999999999", "expected a 32-bit integer"},
        BadFile{"calibration: {seed: -1}", "seed is \"-1\", expected an integer from 0"},
        BadFile{"method: kv-latnet",
                "job.yaml:1:9: method is \"kv-latnet\", expected one of kv-latent, low-rank; did "
                "you mean "
                "kv-latent?"},
        BadFile{"dtype: float61",
                "dtype is \"float61\", expected one of float32, bfloat16; did you mean"},
        BadFile{"output: {dtype: float61}", "expected one of float32, bfloat16, float16; did"},
        BadFile{"evaluation: {qualityGate: 0}",
                "job.yaml:1:27: qualityGate is \"0\", expected another number than 0, or none for "
                "the default"},
        BadFile{"threads: 0", "threads is \"0\", expected another number than 0"},
        BadFile{"calibration: {corpora: [{uri: a, weight: 0.0}]}", "weight is \"0.0\", expected"},
        BadFile{"method: [kv-latent]", "method is a list, expected one value"},
        BadFile{"budget: 0.5", "BudgetSpec is not a mapping"},
        BadFile{"calibration: {corpora: {uri: x}}", "corpora is not a list"},
        BadFile{"calibration: {corpora: [x]}", "CorpusSpec is not a mapping"},
        BadFile{"device: cpu\ndevice: cuda\n", "job.yaml:2:1: key \"device\" stands twice"},
        BadFile{"factorization:\n  sink_weight: 0.5\n  sinkWeight: 0.1\n",
                "job.yaml:3:3: key \"sinkWeight\" stands twice, as sink_weight and sinkWeight"},
        BadFile{"deadline: soon", "job.yaml:1:11: deadline is \"soon\", expected a time span"},
        BadFile{"deadline: -5s", "expected a time span"},
        BadFile{"labels: [a]", "labels is not a mapping"}, BadFile{"a: [", "job.yaml:"},
        BadFile{"- a", "is not a mapping"}, BadFile{"", "is not a"},
        BadFile{"? [a, b]\n: c\n", "a key is not a text"}));

TEST(JobFileTest, AZeroThatIsAValueIsTaken) {
  JobDraft draft;
  const absl::Status status = MergeJobFile(
      "calibration: {seed: 0}\nhealing: {warmupSteps: 0, weightDecay: 0, attentionLoss: 0}\n"
      "factorization: {damping: 0, rankProfile: {layers: [{layer: 0, rankK: 1, rankV: 1}]}}\n",
      "job.yaml", &draft);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(draft.spec.healing().has_warmup_steps());
  EXPECT_TRUE(draft.spec.factorization().has_damping());
}

TEST(JobFileTest, HasAtMostAMebibyte) {
  JobDraft draft;
  const std::string text = "device: cpu #" + std::string(kMaxJobFileBytes, 'x');
  EXPECT_THAT(std::string(MergeJobFile(text, "job.yaml", &draft).message()),
              HasSubstr("expected at most 1048576"));
}

absl::Status Set(const std::string& setting, JobDraft* draft) {
  return ApplySetting(setting, draft);
}

TEST(SettingTest, SetsNestedRepeatedAndLabels) {
  JobDraft draft;
  ASSERT_TRUE(Set("budget.kvBudget=0.5", &draft).ok());
  ASSERT_TRUE(Set("calibration.corpora.0.uri=/a=b.txt", &draft).ok());
  ASSERT_TRUE(Set("calibration.corpora.1.uri=/c.txt", &draft).ok());
  ASSERT_TRUE(Set("calibration.corpora.0.weight=3", &draft).ok());
  ASSERT_TRUE(Set("evaluation={windows: 4, window_length: 128}", &draft).ok());
  ASSERT_TRUE(Set("deadline=2h", &draft).ok());
  ASSERT_TRUE(Set("labels.example.com/team=x", &draft).ok());
  EXPECT_EQ(draft.spec.budget().kv_budget(), 0.5);
  EXPECT_EQ(draft.spec.calibration().corpora(0).uri(), "/a=b.txt");
  EXPECT_EQ(draft.spec.calibration().corpora(0).weight(), 3);
  EXPECT_EQ(draft.spec.calibration().corpora_size(), 2);
  EXPECT_EQ(draft.spec.evaluation().window_length(), 128);
  EXPECT_EQ(draft.spec.deadline().seconds(), 7200);
  EXPECT_EQ(draft.labels.at("example.com/team"), "x");
}

TEST(JobFileTest, ASecondDocumentIsRefused) {
  JobDraft draft;
  const absl::Status status =
      MergeJobFile("budget: {kvBudget: 0.5}\n---\nbudget: {kvBudget: 0.25}\n", "job.yaml", &draft);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("job.yaml:3:1: a second YAML document begins"));
  EXPECT_TRUE(MergeJobFile("---\nbudget: {kvBudget: 0.5}\n...\n---\n", "j", &draft).ok());
}

TEST(JobFileTest, AnIndexBehindTheLastAppends) {
  JobDraft draft;
  for (const char* setting : {"calibration.corpora.0.uri=a", "calibration.corpora.1.uri=b"}) {
    ASSERT_TRUE(ApplySetting(setting, &draft).ok());
  }
  EXPECT_THAT(ApplySetting("calibration.corpora.5.weight=2", &draft).message(),
              HasSubstr("there are 2, expected 0 to 1, or 2, which appends one"));
}

class BadSettingTest : public testing::TestWithParam<BadFile> {};

TEST_P(BadSettingTest, NamesTheSetting) {
  JobDraft draft;
  const absl::Status status = ApplySetting(GetParam().text, &draft);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(std::string("--set ") + GetParam().text));
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSettingTest,
    testing::Values(BadFile{"budget", "expected KEY=VALUE"}, BadFile{"=1", "expected KEY=VALUE"},
                    BadFile{"bugdet.kvBudget=1", "did you mean budget?"},
                    BadFile{"lables.team=x", "did you mean labels?"},
                    BadFile{"budget.kvBudget=x", "kvBudget is \"x\""},
                    BadFile{"deadline=soon", "deadline is \"soon\", expected a time span"},
                    BadFile{"budget.kvBudget.x=1", "kvBudget has no field \"x\""},
                    BadFile{"calibration.corpora.7.uri=x",
                            "there are 0, expected 0, which appends one"},
                    BadFile{"calibration.corpora.0=x", "needs a field"},
                    BadFile{"budget=1", "not a mapping"}, BadFile{"labels=x", "labels.KEY=VALUE"}));

}  // namespace
}  // namespace latentforge::client
