#include "client/result_table.h"

#include "client/output.h"
#include "client/program_name.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ResultTableTest, ShowsEveryFigure) {
  v1::ConversionResult result;
  result.set_artifact_uri("file:///models/a%20b");
  result.set_report_uri("file:///models/a%20b/report.json");
  result.set_perplexity_base(12.5);
  result.set_perplexity_converted(13.75);
  result.set_kv_bytes_per_token_base(46080);
  result.set_kv_bytes_per_token_converted(23040);
  result.set_peak_rss_bytes(int64_t{3} << 29);
  v1::PhaseTiming* phase = result.add_phases();
  phase->set_phase(v1::PHASE_CALIBRATING);
  phase->set_seconds(61.5);
  phase->set_tokens_per_second(1234.4);
  v1::PhaseTiming* publishing = result.add_phases();
  publishing->set_phase(v1::PHASE_PUBLISHING);
  publishing->set_seconds(0.5);
  v1::JobSpec spec;
  spec.mutable_calibration()->add_corpora()->set_uri("file:///texts/a.txt");
  EXPECT_EQ(ResultTable(result, spec),
            "                        before  after   after / before\n"
            "perplexity              12.50   13.75   1.100\n"
            "KV cache bytes a token  46,080  23,040  50.0 %\n"
            "\n"
            "phase        time    tokens/s\n"
            "calibrating  61.5 s  1,234\n"
            "publishing   0.5 s   -\n"
            "total        62.0 s  \n"
            "\n"
            "peak memory  1.5 GiB\n"
            "measured on  the end of /texts/a.txt, held back from calibration\n"
            "artifact     /models/a b\n"
            "report       /models/a b/report.json\n");
  spec.mutable_evaluation()->mutable_corpus()->set_uri("file:///texts/b.txt");
  EXPECT_THAT(ResultTable(result, spec), HasSubstr("\nmeasured on  /texts/b.txt\n"));
}

TEST(ResultTableTest, ShellWordsAreSafeToPaste) {
  EXPECT_EQ(ShellWord("/a/b-1.txt"), "/a/b-1.txt");
  EXPECT_EQ(ShellWord("a b"), "'a b'");
  EXPECT_EQ(ShellWord("it's $(x)"), "'it'\\''s $(x)'");
  EXPECT_EQ(ShellWord(""), "''");
}

TEST(ProgramNameTest, IsAPathWhereTheShellWouldNotFindIt) {
  const auto same = [](const std::filesystem::path& a, const std::filesystem::path& b) {
    return a == b;
  };
  EXPECT_EQ(NameToCall("latentforge", "/bin", same), "latentforge");
  EXPECT_EQ(NameToCall("/opt/bin/latentforge", "/bin:/opt/bin", same), "latentforge");
  EXPECT_EQ(NameToCall("build/my bin/latentforge", "/bin", same), "'build/my bin/latentforge'");
  EXPECT_EQ(WithProgram("latentforge job list", "./latentforge"), "./latentforge job list");
  EXPECT_EQ(WithProgram("free disk space", "./latentforge"), "free disk space");
}

v1::ListJobsResponse TwoJobs() {
  v1::ListJobsResponse jobs;
  for (const char* name : {"jobs/b", "jobs/a"}) {
    v1::Job* job = jobs.add_jobs();
    job->set_name(name);
    job->mutable_status()->set_state(v1::JOB_STATE_RUNNING);
    job->mutable_status()->set_phase(v1::PHASE_FINE_TUNING);
    job->mutable_spec()->mutable_source()->set_uri("file:///m\x1b[2J");
    job->set_last_sequence(7);
  }
  jobs.set_next_page_token("t");
  return jobs;
}

TEST(OutputTest, JobsInEveryFormat) {
  const v1::ListJobsResponse jobs = TwoJobs();
  EXPECT_EQ(*RenderJobs(jobs, OutputFormat::kName), "jobs/b\njobs/a\n");
  const std::string table = *RenderJobs(jobs, OutputFormat::kTable);
  EXPECT_THAT(table, HasSubstr("jobs/b  running  fine-tuning"));
  EXPECT_THAT(table, HasSubstr("--page-token t"));
  EXPECT_THAT(table, Not(HasSubstr("\x1b")));
  const std::string lines = *RenderJobs(jobs, OutputFormat::kJsonLines);
  EXPECT_THAT(lines, HasSubstr("{\"name\":\"jobs/b\","));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
  EXPECT_THAT(*RenderJobs(jobs, OutputFormat::kJson), HasSubstr("\"nextPageToken\": \"t\""));
}

TEST(OutputTest, RefusesOtherFormats) {
  EXPECT_THAT(ParseOutputFormat("yaml").status().message(), HasSubstr("\"yaml\", expected table"));
}

}  // namespace
}  // namespace latentforge::client
