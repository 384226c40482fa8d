#include "client/study_cells.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "client/study_report.h"
#include "client/study_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

CellRecord Measured(const std::string& key, const std::string& row, double ratio,
                    double perplexity) {
  CellRecord record{.key = key, .row = row, .ratio = ratio};
  record.settings = {{"lowRank", {{"layout", "FACTOR_LAYOUT_PLAIN"}, {"biasUpdate", true}}}};
  record.perplexity_base = 10.9;
  record.perplexity = perplexity;
  record.linear_parameters_base = 1000;
  record.linear_parameters = static_cast<int64_t>(1000 * (1 - ratio)) - 1;
  record.parameters_base = 2000;
  record.parameters = 1899;
  record.macs_base = 1000;
  record.macs = 899;
  record.kv_bytes_base = 64;
  record.kv_bytes = 48;
  record.calibration_tokens = 512;
  record.seconds = 1.5;
  return record;
}

CellRecord Failed(const std::string& key, bool passing) {
  return {.key = key,
          .row = "Cov",
          .ratio = 0.1,
          .reason = passing ? "OUT_OF_MEMORY" : "NUMERICAL_FAILURE",
          .message = "layer 3, \"k_proj\": not finite",
          .passing = passing};
}

TEST(CellLineTest, GivesBackEveryMember) {
  for (CellRecord record : {Measured("k", "RootCov", 0.1, 11.8), Failed("f", true)}) {
    record.artifact = "/study/cells/k";
    const std::string line = CellLine(record);
    EXPECT_THAT(line, Not(HasSubstr("\n")));
    const absl::StatusOr<CellRecord> parsed = ParseCell(line);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(CellLine(*parsed), line);
    EXPECT_EQ(parsed->failed(), record.failed());
    EXPECT_EQ(parsed->perplexity, record.perplexity);
    EXPECT_EQ(parsed->settings, record.settings);
  }
  for (const char* line :
       {"{}", "[]", "x", R"({"key": "k", "row": "r"})", R"({"key": "k", "row": 3})",
        R"({"key": "k", "row": "r", "perplexity": "11", "perplexity_base": 10})",
        R"({"key": "k", "row": "r", "perplexity": 11, "perplexity_base": 10, "reason": "X"})"}) {
    EXPECT_FALSE(ParseCell(line).ok()) << line;
  }
}

TEST(CellLineTest, CountsAreIntegersThatADoubleHolds) {
  const auto parse = [](const std::string& macs) {
    return ParseCell(absl::StrCat(
        R"({"key": "k", "row": "r", "perplexity": 11, "perplexity_base": 10, "macs": )", macs,
        "}"));
  };
  ASSERT_TRUE(parse("9007199254740992").ok());
  EXPECT_EQ(parse("9007199254740992")->macs, int64_t{1} << 53);
  for (const char* macs : {"9007199254740993", "1e300", "-1e300", "-1", "1.5", "\"7\""}) {
    EXPECT_THAT(std::string(parse(macs).status().message()),
                AllOf(HasSubstr("\"macs\" is "),
                      HasSubstr("expected an integer from 0 to 9007199254740992")))
        << macs;
  }
}

class CellFileTest : public testing::Test {
 protected:
  const fs::path path_ = checkpoint::NewTestDirectory("cell_file") / "cells.jsonl";
};

TEST_F(CellFileTest, FindsWhatEndedAndRunsAgainWhatMayPass) {
  absl::StatusOr<CellFile> file = CellFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_TRUE(file->Add(Measured("a", "RootCov", 0.1, 11.8)).ok());
  ASSERT_TRUE(file->Add(Failed("b", /*passing=*/false)).ok());
  ASSERT_TRUE(file->Add(Failed("c", /*passing=*/true)).ok());
  const auto expect_three = [](const CellFile& cells) {
    ASSERT_NE(cells.Find("a"), nullptr);
    EXPECT_EQ(cells.Find("a")->perplexity, 11.8);
    EXPECT_TRUE(cells.Find("b")->failed());
    EXPECT_EQ(cells.Find("c"), nullptr);
    EXPECT_EQ(cells.FindAny("c")->reason, "OUT_OF_MEMORY");
    EXPECT_EQ(cells.FindAny("d"), nullptr);
  };
  expect_three(*file);
  file = CellFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  expect_three(*file);
  // The later line of a cell counts.
  ASSERT_TRUE(file->Add(Measured("c", "Cov", 0.1, 13.0)).ok());
  EXPECT_EQ(CellFile::Open(path_)->Find("c")->perplexity, 13.0);
}

TEST_F(CellFileTest, ATornLineIsCutOffWhereverItIsTorn) {
  const std::string first = CellLine(Measured("a", "RootCov", 0.1, 11.8)) + "\n";
  const std::string second = CellLine(Measured("b", "RootCov", 0.2, 13.5)) + "\n";
  for (size_t kept = 0; kept < second.size(); kept += 7) {
    ASSERT_TRUE(WriteFileAtomic(path_, first + second.substr(0, kept)).ok());
    absl::StatusOr<CellFile> file = CellFile::Open(path_);
    ASSERT_TRUE(file.ok()) << kept << ": " << file.status();
    EXPECT_NE(file->Find("a"), nullptr);
    EXPECT_EQ(file->Find("b"), nullptr);
    ASSERT_TRUE(file->Add(Measured("b", "RootCov", 0.2, 13.5)).ok());
    EXPECT_EQ(ReadFile(path_).value(), first + second);
  }
  ASSERT_TRUE(WriteFileAtomic(path_, first + "{\"key\": 1}\n" + second).ok());
  const absl::Status damaged = CellFile::Open(path_).status();
  EXPECT_TRUE(absl::IsInvalidArgument(damaged)) << damaged;
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("cells.jsonl:2: "));
}

TEST(DigestInputsTest, KnowsChangedFiles) {
  const fs::path folder = checkpoint::NewTestDirectory("study_inputs");
  ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(folder / "model").ok());
  for (const char* text : {"a.txt", "e.txt"}) std::ofstream(folder / text) << text;
  v1::JobSpec spec;
  spec.mutable_source()->set_uri(UriFromPath(folder / "model"));
  spec.mutable_calibration()->add_corpora()->set_uri(UriFromPath(folder / "a.txt"));
  spec.mutable_evaluation()->mutable_corpus()->set_uri(UriFromPath(folder / "e.txt"));
  const InputDigests before = DigestInputs(spec).value();
  EXPECT_EQ(before.size(), 3u);
  EXPECT_EQ(DigestInputs(spec).value(), before);
  std::ofstream(folder / "model" / "notes.md") << "no part of the model";
  EXPECT_EQ(DigestInputs(spec).value(), before);
  std::ofstream(folder / "a.txt", std::ios::app) << "more";
  EXPECT_NE(DigestInputs(spec).value(), before);
  const InputDigests text = DigestInputs(spec).value();
  std::ofstream(folder / "model" / "config.json", std::ios::app) << " ";
  EXPECT_NE(DigestInputs(spec).value(), text);
  fs::remove(folder / "e.txt");
  EXPECT_TRUE(absl::IsNotFound(DigestInputs(spec).status()));
}

TEST(RecordOfTest, TakesFiguresOrReasons) {
  StudyCell cell{.row = "RootCov", .ratio = 0.3};
  cell.spec.mutable_low_rank()->set_layout(v1::FACTOR_LAYOUT_PLAIN);
  v1::Job job;
  job.mutable_status()->set_state(v1::JOB_STATE_SUCCEEDED);
  v1::ConversionResult& result = *job.mutable_status()->mutable_result();
  result.set_perplexity_base(10);
  result.set_perplexity_converted(12);
  v1::PhaseTiming& phase = *result.add_phases();
  phase.set_phase(v1::PHASE_CALIBRATING);
  phase.set_seconds(2);
  phase.set_tokens_per_second(100);
  const Json report = {{"linear_maps", {{"parameters", {{"base", 1000}, {"converted", 690}}}}},
                       {"parameters", {{"base", 1500}, {"converted", 1190}}}};
  CellRecord record = RecordOf(cell, "k", job, report);
  EXPECT_FALSE(record.failed());
  EXPECT_EQ(record.perplexity, 12);
  EXPECT_EQ(record.linear_parameters, 690);
  EXPECT_EQ(record.parameters_base, 1500);
  EXPECT_EQ(record.macs, 0) << "an older report";
  EXPECT_EQ(record.calibration_tokens, 200);
  EXPECT_EQ(record.seconds, 2);
  EXPECT_EQ(record.settings["lowRank"]["layout"], "FACTOR_LAYOUT_PLAIN");

  job.mutable_status()->set_state(v1::JOB_STATE_FAILED);
  v1::ConversionError& error = *job.mutable_status()->mutable_error();
  const auto passing = [&](const char* reason, v1::ErrorClass error_class) {
    error.set_reason(reason);
    error.set_error_class(error_class);
    record = RecordOf(cell, "k", job, Json());
    EXPECT_TRUE(record.failed());
    EXPECT_EQ(record.reason, reason);
    return record.passing;
  };
  for (const char* lasting :
       {"ALREADY_CONVERTED", "INVALID_SPEC", "MALFORMED_CHECKPOINT", "MALFORMED_CONFIG",
        "MALFORMED_CORPUS", "MALFORMED_SAFETENSORS", "MALFORMED_TOKENIZER", "METHOD_NOT_SUPPORTED",
        "RANK_OUT_OF_RANGE", "SOURCE_CORRUPT", "TOO_FEW_TOKENS", "UNSUPPORTED_ARCHITECTURE"}) {
    EXPECT_FALSE(passing(lasting, v1::ERROR_CLASS_USER)) << lasting;
  }
  EXPECT_FALSE(passing("NUMERICAL_FAILURE", v1::ERROR_CLASS_SYSTEM));
  // What stood in the way may be gone, whosever fault it was.
  for (const char* reason : {"SOURCE_NOT_READABLE", "CORPUS_NOT_READABLE", "OUTPUT_NOT_WRITABLE",
                             "OUTPUT_NOT_EMPTY", "DEVICE_UNAVAILABLE", "JOB_DEADLINE"}) {
    EXPECT_TRUE(passing(reason, v1::ERROR_CLASS_USER)) << reason;
  }
  EXPECT_TRUE(passing("OUT_OF_MEMORY", v1::ERROR_CLASS_RESOURCE));
  EXPECT_TRUE(passing("CHECKPOINT_CORRUPT", v1::ERROR_CLASS_SYSTEM));
}

StudyResults SomeResults() {
  return {.rows = {"Cov", "RootCov", "it's"},
          .ratios = {0.1, 0.25},
          .cells = {Failed("f", false), Measured("a", "RootCov", 0.1, 11.8),
                    Measured("b", "RootCov", 0.25, 13.5), Measured("c", "it's", 0.1, 4.3e8)}};
}

TEST(StudyReportTest, TheTableHasRowsByRatios) {
  EXPECT_EQ(StudyTable(SomeResults()),
            "perplexity (original 10.90)  10 %     25 %\n"
            "Cov                          failed   -\n"
            "RootCov                      11.80    13.50\n"
            "it's                         4.3e+08  -\n"
            "\n"
            "parameters of linear maps gone  10 %     25 %\n"
            "Cov                             failed   -\n"
            "RootCov                         10.10 %  25.10 %\n"
            "it's                            10.10 %  -\n");
}

TEST(StudyReportTest, CsvHasALineForEachCellAndQuotesWhatItMust) {
  const std::string csv = StudyCsv(SomeResults());
  EXPECT_THAT(csv, StartsWith("row,ratio,reason,perplexity_base,perplexity,"));
  EXPECT_THAT(csv, HasSubstr("\r\nRootCov,0.1,,10.9,11.8,1000,899,2000,1899,1000,899,64,48,512,"
                             "1.500,,,,,FACTOR_LAYOUT_PLAIN,,,,true,,a,\r\n"));
  EXPECT_THAT(csv, HasSubstr("\r\nCov,0.1,NUMERICAL_FAILURE,,,,,,,,,,,,,,,,,,,,,,,f,"
                             "\"layer 3, \"\"k_proj\"\": not finite\"\r\n"));
  const Json json = StudyJson(SomeResults());
  EXPECT_EQ(json["cells"].size(), 4u);
  EXPECT_EQ(json["cells"][1]["perplexity"], 11.8);
}

TEST(StudyReportTest, ThePlotShowsWhatWasMeasuredAtWhatIsGone) {
  const std::string script = StudyPlot(SomeResults());
  EXPECT_THAT(script, HasSubstr("$row1 << EOD\n10.1 11.8\n25.1 13.5\nEOD\n"));
  EXPECT_THAT(script, Not(HasSubstr("$row0")));
  EXPECT_THAT(script, HasSubstr("title 'it''s'"));
  EXPECT_THAT(script, HasSubstr("10.9 with lines dashtype 2"));
  EXPECT_EQ(StudyPlot({.rows = {"Cov"}, .ratios = {0.1}, .cells = {Failed("f", false)}}), "");
}

TEST(SecondsLeftTest, TheFirstCellCountsOnlyWhileItIsTheOnlyOne) {
  EXPECT_LT(SecondsLeft({}, 5), 0);
  EXPECT_DOUBLE_EQ(SecondsLeft({90}, 4), 360);
  EXPECT_DOUBLE_EQ(SecondsLeft({90, 10, 14}, 3), 36);
}

}  // namespace
}  // namespace latentforge::client
