#include "client/spec_flags.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

// A file system of names, in the folder /data.
FileAccess FakeFiles(const std::set<std::string>& names,
                     const std::map<std::string, std::string>& contents = {}) {
  FileAccess files;
  files.current_folder = "/data";
  files.exists = [names](const std::filesystem::path& path) {
    return names.count(path.string()) > 0;
  };
  files.read = [contents](const std::string& path, int64_t) -> absl::StatusOr<std::string> {
    const auto found = contents.find(path);
    if (found == contents.end()) return absl::NotFoundError(path);
    return found->second;
  };
  return files;
}

SpecFlags Minimal() {
  SpecFlags flags;
  flags.model = "m";
  flags.out = "/out/x";
  flags.kv_budget = 0.5;
  flags.calibration = {"a.txt"};
  return flags;
}

TEST(SpecFlagsTest, MinimalCommandLeavesTheRestToTheServer) {
  const absl::StatusOr<JobDraft> draft = BuildDraft(Minimal(), FakeFiles({}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->spec.source().uri(), "file:///data/m");
  EXPECT_EQ(draft->spec.output().uri(), "file:///out/x");
  EXPECT_EQ(draft->spec.calibration().corpora(0).uri(), "file:///data/a.txt");
  EXPECT_EQ(draft->spec.calibration().corpora(0).weight(), 0);
  EXPECT_EQ(draft->spec.method(), v1::METHOD_UNSPECIFIED);
  EXPECT_FALSE(draft->spec.factorization().has_damping());
  EXPECT_FALSE(draft->spec.evaluation().has_corpus());
}

TEST(SpecFlagsTest, EveryFlagReachesItsField) {
  SpecFlags flags = Minimal();
  flags.method = "kv_latent";
  flags.preconditioner = "diagonal-l1";
  flags.damping = 0.0;
  flags.alpha = 0.25;
  flags.allocation = "care-code";
  flags.calibration = {"a.txt:2", "b.jsonl:0.5"};
  flags.calibration_text_field = "body";
  flags.calibration_sequences = 3;
  flags.sequence_length = 128;
  flags.evaluate = "../t.jsonl";
  flags.evaluate_text_field = "text";
  flags.evaluate_windows = 4;
  flags.window_length = 64;
  flags.seed = 7;
  flags.dtype = "fp32";
  flags.output_dtype = "float16";
  flags.device = "cuda:1";
  flags.threads = 2;
  flags.deadline = "1h";
  flags.labels = {"a=b=c"};
  const absl::StatusOr<JobDraft> draft = BuildDraft(flags, FakeFiles({}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  const v1::JobSpec& spec = draft->spec;
  EXPECT_EQ(spec.method(), v1::METHOD_KV_LATENT);
  EXPECT_EQ(spec.factorization().preconditioner(), v1::PRECONDITIONER_DIAGONAL_L1);
  EXPECT_TRUE(spec.factorization().has_damping());
  EXPECT_EQ(spec.factorization().alpha(), 0.25);
  EXPECT_EQ(spec.factorization().allocation(), v1::RANK_ALLOCATION_CARE_CODE);
  EXPECT_EQ(spec.calibration().corpora(0).weight(), 2);
  EXPECT_EQ(spec.calibration().corpora(0).text_field(), "");
  EXPECT_EQ(spec.calibration().corpora(1).text_field(), "body");
  EXPECT_EQ(spec.calibration().sequences(), 3);
  EXPECT_EQ(spec.calibration().sequence_length(), 128);
  EXPECT_EQ(spec.calibration().seed(), 7u);
  EXPECT_EQ(spec.evaluation().corpus().uri(), "file:///t.jsonl");
  EXPECT_EQ(spec.evaluation().corpus().text_field(), "text");
  EXPECT_EQ(spec.evaluation().windows(), 4);
  EXPECT_EQ(spec.evaluation().window_length(), 64);
  EXPECT_EQ(spec.dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(spec.output().dtype(), v1::DATA_TYPE_FLOAT16);
  EXPECT_EQ(spec.device(), "cuda:1");
  EXPECT_EQ(spec.threads(), 2);
  EXPECT_EQ(spec.deadline().seconds(), 3600);
  EXPECT_EQ(draft->labels.at("a"), "b=c");
}

TEST(SpecFlagsTest, FlagsWinOverTheFileAndSettingsOverFlags) {
  SpecFlags flags;
  flags.job_file = "-";
  flags.kv_budget = 0.5;
  flags.settings = {"calibration.seed=9", "threads=3"};
  flags.threads = 2;
  const absl::StatusOr<JobDraft> draft = BuildDraft(
      flags, FakeFiles({}, {{"-",
                             "source: {uri: m}\noutput: {uri: o}\nbudget: {kvBudget: 0.1}\n"
                             "calibration: {corpora: [{uri: c.txt}], seed: 1}\n"}}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->spec.source().uri(), "file:///data/m");
  EXPECT_EQ(draft->spec.budget().kv_budget(), 0.5);
  EXPECT_EQ(draft->spec.calibration().seed(), 9u);
  EXPECT_EQ(draft->spec.threads(), 3);
}

TEST(SpecFlagsTest, AnyHealingFlagAsksForHealing) {
  EXPECT_FALSE(BuildDraft(Minimal(), FakeFiles({}))->spec.has_healing());
  SpecFlags flags = Minimal();
  flags.heal = true;
  const auto plain = BuildDraft(flags, FakeFiles({}));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_TRUE(plain->spec.has_healing());
  EXPECT_EQ(plain->spec.healing().tokens(), 0);
  flags = Minimal();
  flags.heal_tokens = 4096;
  flags.heal_learning_rate = 1e-3;
  flags.heal_text = {"h.txt:2", "/abs/i.txt"};
  const auto draft = BuildDraft(flags, FakeFiles({}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  const v1::HealingSpec& healing = draft->spec.healing();
  EXPECT_EQ(healing.tokens(), 4096);
  EXPECT_EQ(healing.learning_rate(), 1e-3);
  ASSERT_EQ(healing.corpora_size(), 2);
  EXPECT_EQ(healing.corpora(0).uri(), "file:///data/h.txt");
  EXPECT_EQ(healing.corpora(0).weight(), 2);
  EXPECT_EQ(healing.corpora(1).uri(), "file:///abs/i.txt");
  EXPECT_THAT(
      std::string(CheckLocalInputs(*draft, FakeFiles({"/data/m", "/data/a.txt"})).message()),
      HasSubstr("--heal-text: /data/h.txt does not exist"));
}

TEST(SpecFlagsTest, AnchoredIsAskedForByFlagOrFile) {
  SpecFlags flags = Minimal();
  EXPECT_FALSE(BuildDraft(flags, FakeFiles({}))->spec.factorization().anchored());
  flags.anchored = true;
  EXPECT_TRUE(BuildDraft(flags, FakeFiles({}))->spec.factorization().anchored());
  flags.anchored = false;
  flags.job_file = "job.yaml";
  const auto draft =
      BuildDraft(flags, FakeFiles({}, {{"job.yaml", "factorization: {anchored: true}\n"}}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_TRUE(draft->spec.factorization().anchored());
}

TEST(SpecFlagsTest, ARatioTakesThePlaceOfABudget) {
  SpecFlags flags = Minimal();
  flags.kv_budget.reset();
  flags.max_perplexity_ratio = 1.05;
  flags.quality_gate = 1.1;
  const auto draft = BuildDraft(flags, FakeFiles({}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->spec.budget().max_perplexity_ratio(), 1.05);
  EXPECT_EQ(draft->spec.budget().kv_budget(), 0);
  EXPECT_EQ(draft->spec.evaluation().quality_gate(), 1.1);
  // A flag replaces what the file says of the other.
  flags.job_file = "job.yaml";
  const auto merged =
      BuildDraft(flags, FakeFiles({}, {{"job.yaml", "budget: {kvBudget: 0.25}\n"}}));
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(merged->spec.budget().kv_budget(), 0);
}

TEST(SpecFlagsTest, RankProfileImpliesItsAllocation) {
  SpecFlags flags = Minimal();
  flags.rank_profile = "report.json";
  const FileAccess files = FakeFiles(
      {},
      {{"report.json", R"({"layers": [{"rank_k": 3, "rank_v": 4, "relative_error_k": 0.1}]})"}});
  const absl::StatusOr<JobDraft> draft = BuildDraft(flags, files);
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->spec.factorization().allocation(), v1::RANK_ALLOCATION_PROFILE);
  EXPECT_EQ(draft->spec.factorization().rank_profile().layers(0).rank_v(), 4);
  flags.kv_budget.reset();
  EXPECT_THAT(BuildDraft(flags, files).status().message(), HasSubstr("--kv-budget is missing"));
  flags.kv_budget = 0.5;
  flags.allocation = "uniform";
  EXPECT_THAT(BuildDraft(flags, files).status().message(), HasSubstr("--allocation profile"));
}

TEST(SpecFlagsTest, AKeyThatIsGivenTwiceIsRefused) {
  SpecFlags flags = Minimal();
  flags.labels = {"a=b", "c=d", "a=c"};
  EXPECT_EQ(BuildDraft(flags, FakeFiles({})).status().message(),
            "--label gives the key \"a\" twice, as \"a=b\" and \"a=c\", expected once");
  flags.labels = {"a=b"};
  flags.worker_labels = {"zone=a", "zone=b"};
  EXPECT_THAT(BuildDraft(flags, FakeFiles({})).status().message(),
              HasSubstr("--worker-label gives the key \"zone\" twice"));
  // Flags win over the file.
  flags.worker_labels = {};
  flags.job_file = "job.yaml";
  const auto draft = BuildDraft(flags, FakeFiles({}, {{"job.yaml", "labels: {a: x, e: f}"}}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->labels, (std::map<std::string, std::string>{{"a", "b"}, {"e", "f"}}));
}

TEST(SpecFlagsTest, FilesAreNamedByTheirFlags) {
  SpecFlags flags = Minimal();
  flags.rank_profile = "short.txt";
  EXPECT_THAT(
      std::string(BuildDraft(flags, FakeFiles({}, {{"short.txt", "x"}})).status().message()),
      testing::StartsWith("--rank-profile: short.txt: invalid JSON"));
  EXPECT_THAT(std::string(BuildDraft(flags, FakeFiles({})).status().message()),
              testing::StartsWith("--rank-profile: short.txt"));
}

TEST(SpecFlagsTest, FilesWithoutAnEndAreNotReadWhole) {
  const absl::StatusOr<std::string> text = LocalFileAccess().read("/dev/zero", kMaxJobFileBytes);
  EXPECT_EQ(text.status().message(), "/dev/zero is larger than 1048576 bytes");
}

TEST(SpecFlagsTest, OnlyWhatIsTakenIsOffered) {
  SpecFlags flags = Minimal();
  flags.dtype = "bogus";
  EXPECT_EQ(BuildDraft(flags, FakeFiles({})).status().message(),
            "--dtype is \"bogus\", expected one of float32, bfloat16");
  flags.dtype = "fp16";
  EXPECT_EQ(BuildDraft(flags, FakeFiles({})).status().message(),
            "--dtype is \"fp16\", expected float32 or bfloat16: float16 is for output only");
  flags.dtype.reset();
  flags.method = "mla";
  EXPECT_EQ(BuildDraft(flags, FakeFiles({})).status().message(),
            "--method is \"mla\", expected one of kv-latent, low-rank");
}

TEST(SpecFlagsTest, NamesWhatIsMissingOrWrong) {
  const auto message = [](void (*change)(SpecFlags*)) {
    SpecFlags flags = Minimal();
    change(&flags);
    const absl::Status status = BuildDraft(flags, FakeFiles({})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](SpecFlags* f) { f->model.reset(); }), HasSubstr("MODEL is missing"));
  EXPECT_THAT(message([](SpecFlags* f) { f->out.reset(); }), HasSubstr("--out is missing"));
  EXPECT_THAT(message([](SpecFlags* f) { f->calibration.clear(); }), HasSubstr("--calibration"));
  EXPECT_THAT(message([](SpecFlags* f) { f->kv_budget.reset(); }),
              HasSubstr("--kv-budget is missing, expected a number in (0, 1]"));
  EXPECT_THAT(message([](SpecFlags* f) { f->method = "low-rank"; }),
              HasSubstr("--ratio is missing, expected a number in (0, 1) with --method low-rank"));
  EXPECT_THAT(message([](SpecFlags* f) {
                f->method = "low-rank";
                f->low_rank.ratio = 1.0;
              }),
              HasSubstr("--ratio is 1, expected a number in (0, 1)"));
  EXPECT_THAT(message([](SpecFlags* f) { f->settings = {"method=full-mla"}; }),
              HasSubstr("--method is full-mla, which is not available"));
  EXPECT_THAT(message([](SpecFlags* f) { f->kv_budget = 1.5; }), HasSubstr("--kv-budget is 1.5"));
  EXPECT_THAT(message([](SpecFlags* f) { f->preconditioner = "whiten"; }),
              HasSubstr("--preconditioner is \"whiten\", expected one of identity"));
  EXPECT_THAT(message([](SpecFlags* f) { f->deadline = "x"; }),
              HasSubstr("--deadline is \"x\", expected a time span"));
  EXPECT_THAT(message([](SpecFlags* f) { f->labels = {"x"}; }),
              HasSubstr("--label is \"x\", expected KEY=VALUE"));
}

TEST(SpecFlagsTest, EveryFlagOfLowRankReachesItsField) {
  SpecFlags flags = Minimal();
  flags.kv_budget.reset();
  flags.method = "low-rank";
  flags.low_rank = {.ratio = 0.3,
                    .factor_layout = "plain",
                    .query_key = "local",
                    .value_output = "joint",
                    .mlp = "output-metric",
                    .activations = "compressed",
                    .bias_update = true,
                    .literal_hessian = true};
  const absl::StatusOr<JobDraft> draft = BuildDraft(flags, FakeFiles({}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->spec.method(), v1::METHOD_LOW_RANK);
  EXPECT_EQ(draft->spec.budget().parameter_ratio(), 0.3);
  const v1::LowRankSpec& low_rank = draft->spec.low_rank();
  EXPECT_EQ(low_rank.layout(), v1::FACTOR_LAYOUT_PLAIN);
  EXPECT_EQ(low_rank.query_key(), v1::JOINT_MODE_LOCAL);
  EXPECT_EQ(low_rank.value_output(), v1::JOINT_MODE_JOINT);
  EXPECT_EQ(low_rank.mlp(), v1::MLP_COMPRESSION_OUTPUT_METRIC);
  EXPECT_EQ(low_rank.activations(), v1::ACTIVATION_SOURCE_COMPRESSED);
  EXPECT_TRUE(low_rank.bias_update());
  EXPECT_TRUE(low_rank.literal_hessian());
  // Nothing is said of low-rank where no flag is.
  EXPECT_FALSE(BuildDraft(Minimal(), FakeFiles({}))->spec.has_low_rank());
}

TEST(SpecFlagsTest, AFileThatCannotBeReadNamesItsFlag) {
  SpecFlags flags = Minimal();
  flags.rank_profile = "none";
  EXPECT_EQ(BuildDraft(flags, FakeFiles({})).status(), absl::NotFoundError("--rank-profile: none"));
  flags.job_file = "no.yaml";
  EXPECT_EQ(BuildDraft(flags, FakeFiles({})).status(), absl::NotFoundError("-f: no.yaml"));
}

TEST(WeightedFileTest, AnExistingFileWinsOverAWeight) {
  const FileAccess files = FakeFiles({"/data/a:2", "/data/a"});
  EXPECT_EQ(ParseWeightedFile("--calibration", "a:2", files)->path, "a:2");
  EXPECT_EQ(ParseWeightedFile("--calibration", "a:3", files)->path, "a");
  EXPECT_EQ(ParseWeightedFile("--calibration", "a:3", files)->weight, 3);
  EXPECT_EQ(ParseWeightedFile("--calibration", "a:2:0.5", files)->path, "a:2");
  EXPECT_EQ(ParseWeightedFile("--calibration", "a:2:0.5", files)->weight, 0.5);
}

TEST(WeightedFileTest, AColonWithoutANumberBelongsToTheName) {
  const FileAccess files = FakeFiles({"/data/a"});
  EXPECT_EQ(ParseWeightedFile("--calibration", "file:/x", files)->path, "file:/x");
  EXPECT_EQ(ParseWeightedFile("--calibration", "a:b.txt", FakeFiles({}))->path, "a:b.txt");
  EXPECT_EQ(ParseWeightedFile("--calibration", "plain", files)->weight, 0);
}

TEST(WeightedFileTest, RefusesWrongWeights) {
  const FileAccess files = FakeFiles({"/data/a"});
  for (const char* text : {"a:0", "a:-1", "a:nan", "a:inf", "a:x", "a:"}) {
    EXPECT_THAT(ParseWeightedFile("--calibration", text, files).status().message(),
                HasSubstr("a positive number"))
        << text;
  }
  for (const char* text : {":2", "a::2", ":"}) {
    EXPECT_THAT(ParseWeightedFile("--calibration", text, files).status().message(),
                HasSubstr("expected FILE or FILE:WEIGHT"))
        << text;
  }
  EXPECT_FALSE(ParseWeightedFile("--calibration", "", files).ok());
}

TEST(LocalInputsTest, NamesTheFlagOfAMissingFile) {
  SpecFlags flags = Minimal();
  const FileAccess model_only = FakeFiles({"/data/m"});
  const absl::StatusOr<JobDraft> draft = BuildDraft(flags, model_only);
  ASSERT_TRUE(draft.ok()) << draft.status();
  const absl::Status status = CheckLocalInputs(*draft, model_only);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("--calibration: /data/a.txt"));
  EXPECT_THAT(CheckLocalInputs(*draft, FakeFiles({})).message(), HasSubstr("MODEL: /data/m"));
  EXPECT_TRUE(CheckLocalInputs(*draft, FakeFiles({"/data/m", "/data/a.txt"})).ok());
}

TEST(SpecFlagsTest, SchedulingFlagsSetTheirFields) {
  SpecFlags flags = Minimal();
  flags.priority = "high";
  flags.queue_deadline = "30m";
  flags.run_deadline = "4h";
  flags.worker_labels = {"zone=a", "disk=nvme"};
  const auto draft = BuildDraft(flags, FakeFiles({}));
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->spec.priority(), v1::PRIORITY_HIGH);
  EXPECT_EQ(draft->spec.queue_deadline().seconds(), 1800);
  EXPECT_EQ(draft->spec.run_deadline().seconds(), 14400);
  EXPECT_EQ(draft->spec.worker_selector_size(), 2);
  EXPECT_EQ(draft->spec.worker_selector().at("zone"), "a");
  flags.worker_labels = {"zone"};
  EXPECT_THAT(std::string(BuildDraft(flags, FakeFiles({})).status().message()),
              HasSubstr("--worker-label is \"zone\", expected KEY=VALUE, such as zone=a"));
  flags.worker_labels.clear();
  flags.priority = "urgent";
  EXPECT_THAT(std::string(BuildDraft(flags, FakeFiles({})).status().message()),
              HasSubstr("--priority is \"urgent\", expected "));
  flags.priority = "low";
  flags.run_deadline = "soon";
  EXPECT_THAT(std::string(BuildDraft(flags, FakeFiles({})).status().message()),
              HasSubstr("--run-deadline is \"soon\""));
}

}  // namespace
}  // namespace latentforge::client
