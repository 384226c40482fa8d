#include "service/validation.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/conversion_defaults.h"
#include "base/file.h"
#include "tests/service/validation_fixture.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using ValidationTest = ValidationFixture;

TEST_F(ValidationTest, FillsDefaultsResolvesPathsAndEstimates) {
  fs::create_directory_symlink(dir_.path() / "model", dir_.path() / "link");
  v1::JobSpec spec = Spec();
  spec.mutable_source()->set_uri(absl::StrCat("file://", (dir_.path() / "link").string()));
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->spec.method(), v1::METHOD_KV_LATENT);
  EXPECT_EQ(checked->spec.factorization().preconditioner(), v1::PRECONDITIONER_FISHER);
  EXPECT_EQ(checked->spec.factorization().allocation(), v1::RANK_ALLOCATION_GLOBAL);
  EXPECT_EQ(checked->spec.factorization().latent(), v1::LATENT_LAYOUT_JOINT);
  EXPECT_EQ(checked->spec.factorization().sink_weight(), kDefaultSinkWeight);
  EXPECT_EQ(checked->spec.calibration().labels(), v1::FISHER_LABELS_SAMPLED);
  EXPECT_EQ(checked->spec.factorization().damping(), kDefaultDamping);
  EXPECT_EQ(checked->spec.calibration().sequences(), kDefaultCalibrationSequences);
  EXPECT_EQ(checked->spec.calibration().corpora(0).weight(), 1);
  EXPECT_EQ(checked->spec.device(), "auto");
  const fs::path real = fs::canonical(dir_.path());
  EXPECT_EQ(checked->spec.source().uri(), UriFromPath(real / "model"));
  EXPECT_EQ(checked->output_path, (real / "out").string());
  EXPECT_GT(checked->estimate.peak_memory_bytes(), 0);
  EXPECT_GT(checked->estimate.output_bytes(), 0);
  EXPECT_GT(checked->estimate.kv_bytes_per_token_base(),
            checked->estimate.kv_bytes_per_token_converted());
  // What passed passes again: the stored specification is itself valid.
  EXPECT_TRUE(Check(checked->spec).ok());
}

TEST_F(ValidationTest, SourcesThatCannotRunAreNamed) {
  v1::JobSpec spec = Spec();
  spec.mutable_source()->set_uri((dir_.path() / "absent").string());
  ExpectRefused(spec, "SOURCE_NOT_READABLE", {"absent"});
  spec.mutable_source()->set_uri("s3://bucket/model");
  ExpectRefused(spec, "BAD_URI", {"spec.source.uri", "s3"});
  spec.mutable_source()->set_uri("relative/model");
  ExpectRefused(spec, "BAD_URI", {"spec.source.uri"});

  fs::create_directory(dir_.path() / "mamba");
  std::ofstream(dir_.path() / "mamba" / "config.json") << R"({"model_type": "mamba"})";
  spec.mutable_source()->set_uri((dir_.path() / "mamba").string());
  ExpectRefused(spec, "UNSUPPORTED_ARCHITECTURE", {"mamba"});

  fs::create_directory(dir_.path() / "broken");
  std::ofstream(dir_.path() / "broken" / "config.json") << "{";
  spec.mutable_source()->set_uri((dir_.path() / "broken").string());
  ExpectRefused(spec, "MALFORMED_CONFIG", {"config.json"});
}

TEST_F(ValidationTest, DamagedWeightsAreToldFromFilesThatDoNotFitTogether) {
  const fs::path weights = dir_.path() / "model" / "model.safetensors";
  const fs::path config = dir_.path() / "model" / "config.json";
  std::stringstream text;
  text << std::ifstream(config).rdbuf();
  std::ofstream(config) << absl::StrReplaceAll(text.str(),
                                               {{"\"vocab_size\": ", "\"vocab_size\": 1"}});
  ExpectRefused(Spec(), "MALFORMED_CHECKPOINT", {"has shape", "from config.json"});
  std::ofstream(config) << text.str();
  fs::resize_file(weights, fs::file_size(weights) - 1);
  ExpectRefused(Spec(), "MALFORMED_SAFETENSORS", {"model.safetensors"});
  fs::resize_file(weights, 0);
  ExpectRefused(Spec(), "MALFORMED_SAFETENSORS", {"model.safetensors"});
}

TEST_F(ValidationTest, NamesThatAreTooLongAreWrongFields) {
  v1::JobSpec spec = Spec();
  spec.mutable_output()->set_uri((dir_.path() / std::string(300, 'n') / "out").string());
  ExpectRefused(spec, kInvalidField, {"spec.output.uri has a name of 300 bytes", "at most 255"});
  std::string deep = dir_.path().string();
  for (int i = 0; i < 600; ++i) deep += "/a-folder";
  spec.mutable_output()->set_uri(deep);
  ExpectRefused(spec, kInvalidField, {"has a path of ", "expected at most 4095"});
}

TEST_F(ValidationTest, SourcesWithoutAUsableTokenizerAreRefused) {
  const fs::path file = dir_.path() / "model" / "tokenizer.json";
  fs::remove(file);
  ExpectRefused(Spec(), "SOURCE_NOT_READABLE", {"spec.source.uri", "tokenizer.json"});
  for (const char* text : {"{}", "not JSON", "[]", R"({"model": {"type": "BPE"}})"}) {
    std::ofstream(file) << text;
    ExpectRefused(Spec(), "MALFORMED_TOKENIZER", {"spec.source.uri", "tokenizer.json"});
  }
}

TEST_F(ValidationTest, CorporaMustBeReadableFilesWithText) {
  v1::JobSpec spec = Spec();
  v1::CorpusSpec& corpus = *spec.mutable_calibration()->mutable_corpora(0);
  corpus.set_uri((dir_.path() / "none.txt").string());
  ExpectRefused(spec, "CORPUS_NOT_READABLE", {"none.txt", "does not exist"});
  corpus.set_uri(dir_.path().string());
  ExpectRefused(spec, "CORPUS_NOT_READABLE", {"regular file"});
  std::ofstream(dir_.path() / "empty.txt").flush();
  corpus.set_uri((dir_.path() / "empty.txt").string());
  ExpectRefused(spec, "MALFORMED_CORPUS", {"is empty"});
  std::ofstream(dir_.path() / "lines.jsonl") << "{}\n";
  corpus.set_uri((dir_.path() / "lines.jsonl").string());
  ExpectRefused(spec, kInvalidField, {"text_field"});
  corpus = Spec().calibration().corpora(0);
  corpus.set_weight(-1);
  ExpectRefused(spec, kInvalidField, {"corpora[0].weight"});
}

TEST_F(ValidationTest, TheOutputMustBeAbsentOrEmpty) {
  fs::create_directory(dir_.path() / "out");
  EXPECT_TRUE(Check(Spec()).ok());
  std::ofstream(dir_.path() / "out" / "file") << "x";
  ExpectRefused(Spec(), "OUTPUT_NOT_EMPTY", {"out", "not empty"});
  v1::JobSpec spec = Spec();
  spec.mutable_output()->set_uri((dir_.path() / "text.txt").string());
  ExpectRefused(spec, "OUTPUT_NOT_WRITABLE", {"text.txt is not a folder"});
  spec.mutable_output()->set_uri((dir_.path() / "text.txt" / "deeper" / "out").string());
  ExpectRefused(spec, "OUTPUT_NOT_WRITABLE", {"beneath", "text.txt, which is not a folder"});
}

TEST_F(ValidationTest, TheOutputLiesApartFromTheSource) {
  fs::create_directory_symlink(dir_.path() / "model", dir_.path() / "link");
  const fs::path real = fs::canonical(dir_.path());
  v1::JobSpec spec = Spec();
  const auto output = [&](const fs::path& path) -> const v1::JobSpec& {
    spec.mutable_output()->set_uri(path.string());
    return spec;
  };
  for (const char* inside : {"model/out", "link/out", "other/../model/deep/out", "link/a/../out"})
    ExpectRefused(output(dir_.path() / inside), "OUTPUT_OVERLAPS_SOURCE",
                  {"spec.output.uri", "lies inside the source " + (real / "model").string()});
  ExpectRefused(output(dir_.path() / "link"), "OUTPUT_OVERLAPS_SOURCE", {"same folder"});
  ExpectRefused(output(dir_.path()), "OUTPUT_OVERLAPS_SOURCE", {"holds the source"});
  EXPECT_TRUE(Check(output(dir_.path() / "model2")).ok());  // a name that begins alike
}

TEST_F(ValidationTest, ALinkThatLeadsNowhereIsNoOutput) {
  fs::create_symlink(dir_.path() / "gone", dir_.path() / "dangling");
  v1::JobSpec spec = Spec();
  spec.mutable_output()->set_uri((dir_.path() / "dangling").string());
  ExpectRefused(spec, "OUTPUT_NOT_WRITABLE",
                {"dangling is a symbolic link to", "gone, which does"});
  spec.mutable_output()->set_uri((dir_.path() / "dangling" / "out").string());
  ExpectRefused(spec, "OUTPUT_NOT_WRITABLE", {"lies beneath", "dangling, which is a symbolic"});
}

TEST_F(ValidationTest, NothingOutsideTheRootsIsTouched) {
  TempDir outside;
  std::ofstream(outside.path() / "secret.txt") << "x";
  fs::create_symlink(outside.path() / "secret.txt", dir_.path() / "link.txt");
  const FileSpecChecker checker;
  const PathRoots roots = {fs::canonical(dir_.path())};
  EXPECT_TRUE(checker.Check(Spec(), roots).ok());
  const std::string dotdot =
      absl::StrCat(dir_.path().string(), "/../", outside.path().filename().string(), "/secret.txt");
  for (const std::string& uri :
       {(outside.path() / "secret.txt").string(), (dir_.path() / "link.txt").string(), dotdot}) {
    v1::JobSpec spec = Spec();
    spec.mutable_calibration()->mutable_corpora(0)->set_uri(uri);
    const absl::Status status = checker.Check(spec, roots).status();
    EXPECT_EQ(ReasonOf(status), "PATH_NOT_ALLOWED") << uri << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("allowed roots " + fs::canonical(dir_.path()).string()));
  }
  v1::JobSpec spec = Spec();
  spec.mutable_output()->set_uri((outside.path() / "out").string());
  EXPECT_EQ(ReasonOf(checker.Check(spec, roots).status()), "PATH_NOT_ALLOWED");
}

TEST_F(ValidationTest, OfWhatLiesOutsideTheRootsNothingIsTold) {
  TempDir outside;
  std::ofstream(outside.path() / "there") << "x";
  const PathRoots roots = {fs::canonical(dir_.path())};
  const auto answer = [&](const fs::path& target) {
    fs::remove(dir_.path() / "link");
    fs::create_symlink(target, dir_.path() / "link");
    fs::remove(dir_.path() / "model" / "extra");
    std::string answers;
    const auto check = [&](const v1::JobSpec& spec) {
      const absl::Status status = FileSpecChecker().Check(spec, roots).status();
      absl::StrAppend(&answers, ReasonOf(status), ": ", status.message(), "\n");
    };
    v1::JobSpec spec = Spec();
    spec.mutable_calibration()->mutable_corpora(0)->set_uri((dir_.path() / "link").string());
    check(spec);
    spec = Spec();
    spec.mutable_output()->set_uri((dir_.path() / "link").string());
    check(spec);
    fs::create_symlink(target, dir_.path() / "model" / "extra");
    check(Spec());
    return answers;
  };
  const std::string there = answer(outside.path() / "there");
  EXPECT_EQ(answer(outside.path() / "absent"), there);
  EXPECT_EQ(answer(outside.path() / "there" / "beneath"), there);
  EXPECT_THAT(there, HasSubstr("PATH_NOT_ALLOWED: spec.calibration.corpora[0].uri: path"));
  EXPECT_THAT(there, HasSubstr("PATH_NOT_ALLOWED: spec.output.uri: path"));
  EXPECT_THAT(there, HasSubstr("model/extra is outside the allowed roots"));
}

TEST_F(ValidationTest, BehindALinkToNothingNoPathLeadsOutOfTheRoots) {
  const fs::path root = fs::canonical(dir_.path());
  fs::path inside = root;  // as deep beneath the root as the root's folder is beneath "/"
  fs::path output = root / "l";
  for (const fs::path& name : root) {
    inside /= name.has_root_directory() ? "1" : name;
    output /= "..";
  }
  fs::create_symlink(inside, root / "l");
  v1::JobSpec spec = Spec();
  spec.mutable_output()->set_uri((output / "etc" / "passwd" / "x").string());
  const absl::StatusOr<CheckedSpec> checked = FileSpecChecker().Check(spec, {root});
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->output_path, root / "etc" / "passwd" / "x");
}

TEST_F(ValidationTest, AFolderWhoseLinksCannotBeSeenIsNoSourceBeneathRoots) {
  constexpr uid_t kNobody = 65534;
  fs::permissions(dir_.path(), fs::perms{0755});
  fs::permissions(dir_.path() / "model", fs::perms{0311});
  const bool privileged = geteuid() == 0;
  ASSERT_TRUE(!privileged || seteuid(kNobody) == 0);
  const absl::Status status =
      FileSpecChecker().Check(Spec(), {fs::canonical(dir_.path())}).status();
  ASSERT_TRUE(!privileged || seteuid(0) == 0);
  fs::permissions(dir_.path() / "model", fs::perms{0755});
  EXPECT_EQ(ReasonOf(status), "SOURCE_NOT_READABLE") << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("model cannot be listed: Permission denied, expected"));
}

TEST_F(ValidationTest, ARootItselfIsNoOutput) {
  fs::create_directory(dir_.path() / "results");
  const fs::path results = fs::canonical(dir_.path() / "results");
  v1::JobSpec spec = Spec();
  spec.mutable_output()->set_uri(results.string());
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
  const PathRoots roots = {fs::canonical(dir_.path() / "model"),
                           fs::canonical(dir_.path() / "text.txt"), results};
  const absl::Status status = FileSpecChecker().Check(spec, roots).status();
  EXPECT_EQ(ReasonOf(status), "PATH_NOT_ALLOWED") << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected a folder in it"));
}

TEST_F(ValidationTest, TextsLongerThanTheContextAreWarnedOf) {
  v1::JobSpec spec = Spec();
  EXPECT_THAT(Check(spec)->estimate.warnings(), testing::IsEmpty());
  spec.mutable_calibration()->set_sequence_length(512);
  spec.mutable_evaluation()->set_window_length(1024);
  EXPECT_THAT(Check(spec)->estimate.warnings(),
              testing::ElementsAre(
                  "calibration sequences of 512 tokens are longer than the model's context of 256",
                  "evaluation windows of 1024 tokens are longer than the model's context of 256"));
}

TEST_F(ValidationTest, TextsBeyondLearnedPositionsAreRefused) {
  ASSERT_TRUE(
      checkpoint::WriteTinyCheckpoint(dir_.path() / "opt", {.family = checkpoint::Family::kOpt})
          .ok());
  v1::JobSpec spec = Spec();
  spec.mutable_source()->set_uri((dir_.path() / "opt").string());
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
  spec.mutable_evaluation()->set_window_length(257);
  ExpectRefused(spec, "INVALID_FIELD",
                {"spec.evaluation.window_length", "windows of 257 tokens", "context of 256"});
}

TEST_F(ValidationTest, HealingSequencesLongerThanTheContextAreWarnedOfToo) {
  v1::JobSpec spec = Spec();
  spec.mutable_healing()->set_sequence_length(900'000);
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  ASSERT_EQ(checked->estimate.warnings_size(), 1);
  EXPECT_THAT(checked->estimate.warnings(0), HasSubstr("healing sequences of 900000 tokens"));
}

TEST_F(ValidationTest, AnArtifactIsNoSource) {
  const auto written = checkpoint::WriteTinyCheckpoint(
      dir_.path() / "artifact", {.ranks = {{.k = 4, .v = 4}, {.k = 4, .v = 4}}});
  ASSERT_TRUE(written.ok()) << written;
  v1::JobSpec spec = Spec();
  spec.mutable_source()->set_uri((dir_.path() / "artifact").string());
  ExpectRefused(spec, "ALREADY_CONVERTED", {"artifact is already converted"});
}

TEST_F(ValidationTest, AFileIsNoModel) {
  v1::JobSpec spec = Spec();
  spec.mutable_source()->set_uri((dir_.path() / "model" / "config.json").string());
  ExpectRefused(spec, "SOURCE_NOT_READABLE",
                {"config.json is a file, expected the folder of a checkpoint"});
}

TEST_F(ValidationTest, RankProfilesMustFitModelAndBudget) {
  v1::JobSpec spec = Spec();
  spec.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_PROFILE);
  ExpectRefused(spec, "RANK_OUT_OF_RANGE", {"rank_profile", "is empty"});
  v1::RankProfile& profile = *spec.mutable_factorization()->mutable_rank_profile();
  for (int i = 0; i < Layers(); ++i) {
    v1::LayerRank& layer = *profile.add_layers();
    layer.set_layer(i);
    layer.set_rank_k(1);
    layer.set_rank_v(1);
  }
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
  profile.mutable_layers(0)->set_rank_k(static_cast<int32_t>(Width() + 1));
  ExpectRefused(spec, "RANK_OUT_OF_RANGE", {"layers[0].rank_k", absl::StrCat(Width())});
  for (v1::LayerRank& layer : *profile.mutable_layers()) {
    layer.set_rank_k(static_cast<int32_t>(Width()));
    layer.set_rank_v(static_cast<int32_t>(Width()));
  }
  ExpectRefused(spec, "BUDGET_OUT_OF_RANGE", {"the rank profile needs 1"});
  spec.mutable_budget()->set_kv_budget(1);
  EXPECT_TRUE(Check(spec).ok());
  profile.mutable_layers(0)->set_layer(1);
  ExpectRefused(spec, "RANK_OUT_OF_RANGE", {"layers[0].layer", "expected 0"});
  profile.mutable_layers()->RemoveLast();
  ExpectRefused(spec, "RANK_OUT_OF_RANGE", {"entries"});
  spec.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_CARE);
  ExpectRefused(spec, kInvalidField,
                {"allocation", "is care, expected profile with a rank profile"});
}

TEST_F(ValidationTest, JointRanksGoUpToTwiceTheWidth) {
  v1::JobSpec spec = Spec();
  spec.mutable_budget()->set_kv_budget(1);
  spec.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_PROFILE);
  v1::RankProfile& profile = *spec.mutable_factorization()->mutable_rank_profile();
  for (int i = 0; i < Layers(); ++i) {
    v1::LayerRank& layer = *profile.add_layers();
    layer.set_layer(i);
    layer.set_rank_kv(static_cast<int32_t>(2 * Width()));
  }
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->spec.factorization().latent(), v1::LATENT_LAYOUT_JOINT);
  profile.mutable_layers(1)->set_rank_k(1);
  ExpectRefused(spec, "RANK_OUT_OF_RANGE", {"layers[1].rank_k", "expected none with a joint"});
  profile.mutable_layers(1)->set_rank_k(0);
  profile.mutable_layers(1)->set_rank_kv(static_cast<int32_t>(2 * Width() + 1));
  ExpectRefused(spec, "RANK_OUT_OF_RANGE", {"layers[1].rank_kv", absl::StrCat(2 * Width())});
}

TEST_F(ValidationTest, JointRanksNeedTheFisherInformation) {
  v1::JobSpec spec = Spec();
  spec.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_IDENTITY);
  spec.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_PROFILE);
  for (int i = 0; i < Layers(); ++i) {
    v1::LayerRank& layer = *spec.mutable_factorization()->mutable_rank_profile()->add_layers();
    layer.set_layer(i);
    layer.set_rank_kv(1);
  }
  ExpectRefused(spec, kInvalidField, {"layers[0].rank_kv", "preconditioner identity"});
  spec.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_FISHER);
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
}

TEST_F(ValidationTest, EveryLatentNeedsOneRankMultiple) {
  v1::JobSpec spec = Spec();
  const double width = static_cast<double>(Width());
  spec.mutable_budget()->set_kv_budget(0.5 / width);  // one joint value a layer
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
  spec.mutable_factorization()->set_latent(v1::LATENT_LAYOUT_SEPARATE);
  ExpectRefused(spec, "BUDGET_OUT_OF_RANGE", {"kv_budget", absl::StrCat(1 / width)});
  spec.mutable_factorization()->clear_latent();
  spec.mutable_budget()->set_kv_budget(0.5);
  for (const v1::RankAllocation allocation :
       {v1::RANK_ALLOCATION_GLOBAL, v1::RANK_ALLOCATION_UNIFORM}) {
    spec.mutable_factorization()->set_allocation(allocation);
    spec.mutable_factorization()->set_rank_multiple(static_cast<int32_t>(Width()));
    EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
    spec.mutable_factorization()->set_rank_multiple(static_cast<int32_t>(Width() + 1));
    ExpectRefused(spec, "RANK_OUT_OF_RANGE",
                  {"rank_multiple", absl::StrCat("a rank multiple of at most ", Width())});
  }
}

}  // namespace
}  // namespace latentforge::service
