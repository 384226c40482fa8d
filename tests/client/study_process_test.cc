// The real `latentforge study` with the real server and worker and a scripted compute process.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/child_process.h"
#include "base/file.h"
#include "base/json.h"
#include "client/child_output.h"
#include "client/study_cells.h"
#include "client/study_grid.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/programs_fixture.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// Two rows at two ratios: four cells.
class StudyTest : public ProgramsFixture {
 protected:
  void SetUp() override {
    ProgramsFixture::SetUp();
    setenv("LATENTFORGE_FAKE_SCRIPT", (folder_ / "script.json").c_str(), 1);
    Script(success_);
  }

  // Of all cells, or of one.
  void Script(const std::string& attempts, const std::string& cell = "") {
    WriteScript(cell.empty() ? folder_ / "script.json"
                             : folder_ / "study" / "cells" / absl::StrCat(cell, ".script.json"),
                attempts);
  }

  // The key of a cell of the grid.
  std::string Key(const std::string& row, double ratio) const {
    StudyFlags flags;
    flags.spec.model = (folder_ / "model").string();
    flags.spec.calibration = {(folder_ / "text.txt").string()};
    flags.spec.evaluate = (folder_ / "text.txt").string();
    flags.ratios = {"0.2", "0.4"};
    flags.preconditioners = {"identity", "root-covariance"};
    const StudyGrid grid = BuildGrid(flags, LocalFileAccess()).value();
    for (const StudyCell& cell : grid.cells) {
      if (cell.row != row || cell.ratio != ratio) continue;
      return CellKey(cell.spec, DigestInputs(cell.spec).value());
    }
    ADD_FAILURE() << row;
    return "";
  }

  std::unique_ptr<ChildProcess> Start(const std::vector<std::string>& more = {}) {
    return Launch(
        {"study", folder_ / "model", "--calibration", folder_ / "text.txt", "--evaluate",
         folder_ / "text.txt", "--ratios", "0.2,0.4", "--preconditioners",
         "identity,root-covariance", "--out", folder_ / "study", "--work-dir", folder_ / "work"},
        more);
  }

  // Within a cell whose script hangs.
  void KillWhileItRuns() {
    const std::unique_ptr<ChildProcess> child = Start();
    ASSERT_TRUE(Await([&] { return fs::exists(folder_ / "pid"); }));
    child->Signal(SIGKILL);
    ASSERT_TRUE(child->Wait(absl::Seconds(20)));
  }

  // Attempts of a cell: one that hangs, then some that note their number and succeed.
  std::string HangingAtFirst() const {
    return absl::StrCat(
        hang_, ", ",
        absl::StrReplaceAll(success_, {{"[{\"publish\"",
                                        "[{\"append\": \"@/attempt\", \"text\": \"$ATTEMPT\"}, "
                                        "{\"publish\""}}));
  }

  // The lines of cells.jsonl.
  std::vector<Json> Cells() const {
    std::vector<Json> cells;
    const std::string text = ReadFile(folder_ / "study" / "cells.jsonl").value_or("");
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      cells.push_back(ParseJson(line).value());
    }
    return cells;
  }

  // How often the compute process published.
  size_t Runs() const {
    const std::string text = ReadFile(folder_ / "runs").value_or("");
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }

  const std::string success_ =
      R"([{"publish": "$OUT", "log": "@/runs"},
          {"append": "$OUT/report.json", "text": "{\"linear_maps\": {\"parameters\": {\"base\": 1000, \"converted\": 799}}}"},
          {"event": {"result": {"artifactUri": "file://$OUT",
                                "reportUri": "file://$OUT/report.json", "perplexityBase": 10,
                                "perplexityConverted": 11.5, "kvBytesPerTokenBase": "128",
                                "kvBytesPerTokenConverted": "64"}}}])";
  const std::string hang_ = R"([{"append": "@/pid", "text": "$PID"}, {"sleep_ms": 600000}])";
  const std::string failure_ =
      R"([{"event": {"error": {"reason": "SOURCE_CORRUPT", "message": "layer 0 holds NaN",
                               "errorClass": "ERROR_CLASS_USER"}}}, {"exit": 1}])";
};

TEST_F(StudyTest, RunsEachCellOnceAndEndsWithTheTable) {
  const Ending ending = Finish(*Start());
  EXPECT_EQ(ending.how, "exit code 0") << ending.progress;
  EXPECT_THAT(ending.output, HasSubstr("perplexity (original 10.00)  20 %   40 %\n"
                                       "identity                     11.50  11.50\n"
                                       "root-covariance              11.50  11.50\n"));
  EXPECT_THAT(ending.output, HasSubstr("20.10 %"));
  EXPECT_THAT(ending.progress, HasSubstr("4 cells, 0 of them measured\n"));
  EXPECT_THAT(ending.progress, HasSubstr("cell 1 of 4, identity at 20 %: perplexity 11.50 "
                                         "(original 10.00)\n"));
  EXPECT_THAT(ending.progress, HasSubstr("cell 4 of 4, root-covariance at 40 %, "));
  EXPECT_EQ(Cells().size(), 4u);
  EXPECT_EQ(Runs(), 4u);
  EXPECT_THAT(Listed(folder_ / "study" / "cells"), IsEmpty());
  EXPECT_EQ(Listed(folder_ / "study" / "reports").size(), 4u);
  EXPECT_THAT(Listed(folder_ / "work"), IsEmpty());
  EXPECT_TRUE(fs::exists(folder_ / "study" / "study.csv"));
  EXPECT_TRUE(fs::exists(folder_ / "study" / "study.svg") ||
              ending.progress.find("study.svg was not drawn") != std::string::npos);

  // What is measured needs no service; formats for programs.
  fs::remove(folder_ / "bin" / "latentforge-server");
  const Ending json = Finish(*Start({"-o", "json"}));
  EXPECT_EQ(json.how, "exit code 0") << json.progress;
  EXPECT_EQ(ParseJson(json.output).value()["cells"].size(), 4u);
  EXPECT_EQ(Finish(*Start({"-o", "csv"})).output,
            ReadFile(folder_ / "study" / "study.csv").value());
  EXPECT_EQ(Runs(), 4u);
}

TEST_F(StudyTest, MoreRatiosRunOnlyWhatIsNew) {
  EXPECT_EQ(Finish(*Start()).how, "exit code 0");
  const Ending more = Finish(*Start({"--factor-layouts", "block-identity,plain", "--keep"}));
  EXPECT_EQ(more.how, "exit code 0") << more.progress;
  EXPECT_THAT(more.progress, HasSubstr("8 cells, 4 of them measured\n"));
  EXPECT_EQ(Runs(), 8u);
  EXPECT_EQ(Listed(folder_ / "study" / "cells").size(), 4u) << "--keep";
  // Another text is another study.
  std::ofstream(folder_ / "text.txt", std::ios::app) << "more\n";
  EXPECT_THAT(Finish(*Start()).progress, HasSubstr("4 cells, 0 of them measured\n"));
}

TEST_F(StudyTest, AFailedCellIsRecordedAndTheOthersRun) {
  const std::string failing = Key("identity", 0.4);
  Script(failure_, failing);
  const Ending ending = Finish(*Start());
  EXPECT_EQ(ending.how, "exit code 3") << ending.progress;
  EXPECT_THAT(ending.output, HasSubstr("identity                     11.50  failed\n"));
  EXPECT_THAT(ending.progress, HasSubstr("1 of 4 cells failed; the first, identity at 40 %: layer "
                                         "0 holds NaN [SOURCE_CORRUPT]"));
  ASSERT_EQ(Cells().size(), 4u);
  EXPECT_EQ(Cells()[1]["reason"], "SOURCE_CORRUPT");
  EXPECT_EQ(Cells()[1]["key"], failing);
  EXPECT_EQ(Runs(), 3u);
  EXPECT_EQ(Finish(*Start()).how, "exit code 3");
  EXPECT_EQ(Runs(), 3u);
}

TEST_F(StudyTest, CtrlCStopsCleanlyAndTheSameCommandGoesOn) {
  const std::string hanging = Key("identity", 0.4);
  Script(hang_, hanging);
  const std::unique_ptr<ChildProcess> child = Start();
  ASSERT_TRUE(Await([&] { return fs::exists(folder_ / "pid"); }));
  child->Signal(SIGINT);
  const Ending ending = Finish(*child);
  EXPECT_EQ(ending.how, "exit code 130") << ending.progress;
  EXPECT_THAT(ending.progress, HasSubstr("error: interrupted; 1 of 4 cells are in "));
  EXPECT_THAT(ending.progress, HasSubstr("next: the same command goes on"));
  EXPECT_EQ(Cells().size(), 1u);
  EXPECT_THAT(Listed(folder_ / "work"), IsEmpty());
  EXPECT_THAT(ReadFile(folder_ / "study" / "study.csv").value(), HasSubstr("identity,0.2,"));
  Script(success_, hanging);
  const Ending again = Finish(*Start());
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_THAT(again.progress, HasSubstr("4 cells, 1 of them measured\n"));
  EXPECT_EQ(Cells().size(), 4u);
  EXPECT_EQ(Runs(), 4u);
}

TEST_F(StudyTest, AKilledStudyGoesOnInTheSameJob) {
  const std::string hanging = Key("root-covariance", 0.2);
  Script(HangingAtFirst(), hanging);
  KillWhileItRuns();
  EXPECT_EQ(Cells().size(), 2u);
  // As if the kill had come after a record and before the end of its artifact, within a line.
  const std::string recorded = Cells()[0]["key"];
  fs::create_directories(folder_ / "study" / "cells" / recorded);
  std::ofstream(folder_ / "study" / "cells.jsonl", std::ios::app) << "{\"key\": \"hal";
  const Ending again = Finish(*Start());
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_EQ(ReadFile(folder_ / "attempt").value_or("none"), "2\n");
  EXPECT_EQ(Cells().size(), 4u);
  EXPECT_THAT(Listed(folder_ / "study" / "cells"),
              ElementsAre(absl::StrCat(hanging, ".script.json")));
}

// A kill leaves a job that holds the folder of its cell.
TEST_F(StudyTest, AKilledStudyGoesOnWithOtherThreads) {
  const std::string hanging = Key("root-covariance", 0.2);
  Script(hang_, hanging);
  KillWhileItRuns();
  EXPECT_EQ(Cells().size(), 2u);
  // As if it had been killed after publishing.
  const fs::path artifact = folder_ / "study" / "cells" / hanging;
  fs::create_directories(artifact);
  std::ofstream(artifact / "weights") << "of two threads";
  Script(success_, hanging);
  const Ending again = Finish(*Start({"--threads", "1", "--deadline", "1h"}));
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_EQ(Cells().size(), 4u);
  EXPECT_EQ(Runs(), 4u);
  EXPECT_THAT(Listed(folder_ / "study" / "cells"),
              ElementsAre(absl::StrCat(hanging, ".script.json")));
  EXPECT_THAT(Listed(folder_ / "work"), IsEmpty());
}

// Until its turn has come, what a kill left of a cell is kept.
TEST_F(StudyTest, ARefusedFlagOrAnInterruptionLeavesWhatAKillLeft) {
  const std::string hanging = Key("root-covariance", 0.2);
  Script(HangingAtFirst(), hanging);
  KillWhileItRuns();
  const Ending refused = Finish(*Start({"--calibration-sequences", "1000000"}));
  EXPECT_EQ(refused.how, "exit code 2") << refused.progress;
  EXPECT_THAT(refused.progress, HasSubstr("kept: "));
  EXPECT_THAT(refused.progress, HasSubstr("(what an earlier run finished)"));
  EXPECT_EQ(Listed(folder_ / "work").size(), 1u);
  // A server that never comes.
  const fs::path server = folder_ / "bin" / "latentforge-server";
  fs::rename(server, folder_ / "bin" / "real");
  std::ofstream(server) << "#!/bin/sh\ntouch " << (folder_ / "started").string()
                        << "\nexec sleep 600\n";
  fs::permissions(server, fs::perms::owner_all);
  const std::unique_ptr<ChildProcess> stopped = Start();
  ASSERT_TRUE(Await([&] { return fs::exists(folder_ / "started"); }));
  stopped->Signal(SIGINT);
  const Ending interrupted = Finish(*stopped);
  fs::rename(folder_ / "bin" / "real", server);
  EXPECT_EQ(interrupted.how, "exit code 130") << interrupted.progress;
  EXPECT_THAT(interrupted.progress, HasSubstr("(logs; the same command goes on with"));
  const Ending again = Finish(*Start());
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_EQ(ReadFile(folder_ / "attempt").value_or("none"), "2\n");
  EXPECT_EQ(Cells().size(), 4u);
  EXPECT_THAT(Listed(folder_ / "work"), IsEmpty());
}

// It may go on with its layers, so they stay until it has ended otherwise.
TEST_F(StudyTest, AFailureThatMayPassKeepsTheWorkFolder) {
  const std::string failing = Key("identity", 0.4);
  for (const char* error :
       {R"("reason": "OUT_OF_MEMORY", "errorClass": "ERROR_CLASS_RESOURCE")",
        R"("reason": "CORPUS_NOT_READABLE", "errorClass": "ERROR_CLASS_USER")"}) {
    Script(absl::StrCat(R"([{"event": {"error": {"message": "layer 1 failed", )", error,
                        R"(}}}, {"exit": 1}])"),
           failing);
    const Ending failed = Finish(*Start());
    EXPECT_EQ(failed.how, "exit code 3") << failed.progress;
    EXPECT_THAT(failed.progress, HasSubstr("kept: ")) << error;
    EXPECT_EQ(Listed(folder_ / "work").size(), 1u) << error;
  }
  Script(success_, failing);
  const Ending again = Finish(*Start());
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_THAT(again.progress, HasSubstr("4 cells, 3 of them measured\n"));
  EXPECT_THAT(Listed(folder_ / "work"), IsEmpty());
}

TEST_F(StudyTest, WhatIsWrongIsSaidBeforeAnythingRuns) {
  const struct {
    std::vector<std::string> arguments;
    const char* how;
    const char* message;
  } kCases[] = {
      {{"--bias-update", "yes"}, "exit code 2", "--bias-update is \"yes\", expected off, on"},
      {{"--query-key", "x"}, "exit code 2", "--query-key is \"x\", expected one of joint, local"},
      {{"--mlp", ""}, "exit code 2", "--mlp is empty"},
      {{"-o", "name"}, "exit code 2", "-o is \"name\", expected table, json, jsonl or csv"},
      {{"--evaluate-windows", "0"}, "exit code 2", "--evaluate-windows is \"0\", expected an int"},
      {{"--calibration", "/nonexistent"}, "exit code 6", "--calibration: /nonexistent does not"},
      {{"--device", "gpu"}, "exit code 2", "--device is \"gpu\", expected auto"},
  };
  for (const auto& wrong : kCases) {
    const Ending ending = Finish(*Start(wrong.arguments));
    EXPECT_EQ(ending.how, wrong.how) << wrong.message;
    EXPECT_THAT(ending.progress, HasSubstr(wrong.message));
    EXPECT_FALSE(fs::exists(folder_ / "study")) << wrong.message;
    EXPECT_FALSE(fs::exists(folder_ / "work")) << wrong.message;
  }
  // What only the server finds.
  const Ending refused = Finish(*Start({"--calibration-sequences", "1000000"}));
  EXPECT_EQ(refused.how, "exit code 2") << refused.progress;
  EXPECT_THAT(refused.progress, HasSubstr("TOO_FEW_TOKENS"));
  EXPECT_FALSE(fs::exists(folder_ / "study" / "cells.jsonl"));
  EXPECT_THAT(Listed(folder_ / "work"), IsEmpty());
  EXPECT_EQ(Runs(), 0u);
}

TEST_F(StudyTest, ASecondStudyOfTheFolderIsRefused) {
  Script(hang_);
  const std::unique_ptr<ChildProcess> first = Start();
  ASSERT_TRUE(Await([&] { return fs::exists(folder_ / "pid"); }));
  const Ending second = Finish(*Start({"--seed", "7"}));
  EXPECT_EQ(second.how, "exit code 7") << second.progress;
  EXPECT_THAT(second.progress, HasSubstr("[OUTPUT_IN_USE]"));
  first->Signal(SIGKILL);
  Finish(*first);
}

}  // namespace
}  // namespace latentforge::client
