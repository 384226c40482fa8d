#include "worker/agent/event_reader.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::HasSubstr;

// One line of every kind of event.
std::vector<std::string> EveryKind() {
  return {
      R"({"sequence":"1","time":"2026-01-02T03:04:05.678Z","phaseStarted":{"phase":"PHASE_FETCHING"}})",
      R"({"sequence":2,"time":"2026-01-02T03:04:05Z","progress":{"phase":"PHASE_CALIBRATING","percent":12.5,"phasePercent":50,"etaSeconds":-1,"tokensPerSecond":737.1,"detail":"layer 3 of 30"}})",
      R"({"sequence":3,"perplexity":{"kind":"PERPLEXITY_KIND_BASE","value":17.25,"windowsDone":1,"windowsTotal":8}})",
      R"({"sequence":4,"log":{"severity":"SEVERITY_WARNING","text":"caf\u00e9"}})",
      R"({"sequence":5,"phaseFinished":{"phase":"PHASE_FETCHING","seconds":1.5,"tokens":"4096","tokensPerSecond":2730.6}})",
      R"({"sequence":6,"result":{"artifactUri":"file:///o","kvBytesPerTokenBase":"11520","phases":[{"phase":"PHASE_FETCHING","seconds":1}],"rankProfile":{"layers":[{"layer":0,"rankK":3,"rankV":4}]}}})",
  };
}

struct Sink {
  mutable std::vector<v1::AttemptEvent> events;  // FunctionRef calls const objects
  absl::Status operator()(v1::AttemptEvent event) const {
    events.push_back(std::move(event));
    return absl::OkStatus();
  }
};

TEST(EventReaderTest, ReadsEveryKindHoweverTheBytesAreCut) {
  std::string bytes;
  for (const std::string& line : EveryKind()) absl::StrAppend(&bytes, line, "\n");
  for (const size_t piece : {size_t{1}, size_t{7}, bytes.size()}) {
    EventReader reader;
    Sink sink;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      ASSERT_TRUE(reader.Feed(bytes.substr(at, piece), sink).ok());
    }
    EXPECT_TRUE(reader.Finish().ok());
    ASSERT_EQ(sink.events.size(), 6u);
    EXPECT_EQ(sink.events[0].phase_started().phase(), v1::PHASE_FETCHING);
    EXPECT_EQ(sink.events[0].time().nanos(), 678'000'000);
    EXPECT_EQ(sink.events[1].progress().detail(), "layer 3 of 30");
    EXPECT_EQ(sink.events[3].log().text(), "caf\xC3\xA9");
    EXPECT_EQ(sink.events[4].phase_finished().tokens(), 4096);
    EXPECT_EQ(sink.events[5].result().rank_profile().layers(0).rank_v(), 4);
  }
}

struct BadLine {
  const char* line;
  const char* says;
};

class BadLineTest : public testing::TestWithParam<BadLine> {};

TEST_P(BadLineTest, EndsTheStreamAndIsNamed) {
  EventReader reader;
  Sink sink;
  ASSERT_TRUE(reader.Feed(EveryKind()[0] + "\n", sink).ok());
  const absl::Status status = reader.Feed(absl::StrCat(GetParam().line, "\n"), sink);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 2"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().says));
  EXPECT_EQ(sink.events.size(), 1u);
  EXPECT_EQ(reader.Feed(EveryKind()[1] + "\n", sink), status) << "the first error is final";
  EXPECT_EQ(reader.Finish(), status);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLineTest,
    testing::Values(BadLine{"", "no event"}, BadLine{"hello", "\"hello\""},
                    BadLine{"{", "no event"}, BadLine{"[]", "no event"},
                    BadLine{"null", "no event"},
                    BadLine{R"({"sequence":2,"log":{"text":"a"},"surprise":1})", "surprise"},
                    BadLine{R"({"sequence":2,"log":{"txt":"a"}})", "txt"},
                    BadLine{R"({"sequence":2,"sequence":2,"log":{}})", "sequence"},
                    BadLine{R"({"sequence":2})", "no kind"},
                    BadLine{R"({"sequence":2,"log":null})", "no kind"},
                    BadLine{R"({"sequence":2,"log":{},"progress":{}})", "no event"},
                    BadLine{R"({"sequence":2,"log":{"severity":"LOUD"}})", "no event"},
                    BadLine{R"({"sequence":2,"time":"yesterday","log":{}})", "no event"},
                    BadLine{R"({"sequence":1,"log":{}})", "its sequence is 1, expected 2"},
                    BadLine{R"({"sequence":9,"log":{}})", "its sequence is 9, expected 2"},
                    BadLine{R"({"log":{}})", "its sequence is 0, expected 2"},
                    BadLine{"{\"sequence\":2,\"log\":{\"text\":\"\xff\"}}", "no event"},
                    BadLine{R"({"sequence":2,"log":{}} {})", "no event"}));

TEST(EventReaderTest, RefusesEventsAfterTheLastOne) {
  EventReader reader;
  Sink sink;
  ASSERT_TRUE(reader.Feed("{\"sequence\":1,\"error\":{\"reason\":\"BAD_SOURCE\"}}\n", sink).ok());
  const absl::Status status = reader.Feed("{\"sequence\":2,\"log\":{}}\n", sink);
  EXPECT_THAT(std::string(status.message()), HasSubstr("after the last event"));
}

TEST(EventReaderTest, RefusesALineWithoutEndAndAnEndlessLine) {
  Sink sink;
  EventReader unfinished;
  ASSERT_TRUE(unfinished.Feed("{\"sequence\":1", sink).ok());
  EXPECT_THAT(std::string(unfinished.Finish().message()), HasSubstr("has no end"));

  EventReader endless;
  const std::string chunk(1 << 16, 'x');
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(endless.Feed(chunk, sink).ok());
  const absl::Status status = endless.Feed("\n", sink);
  EXPECT_THAT(std::string(status.message()), HasSubstr("longer than 1048576 bytes"));
  EXPECT_LT(status.message().size(), 500u);
}

TEST(EventReaderTest, RefusesDeepNesting) {
  std::string deep = R"({"sequence":1,"log":{"text":)";
  for (int i = 0; i < 100000; ++i) deep += '[';
  EventReader reader;
  Sink sink;
  EXPECT_FALSE(reader.Feed(deep + "\n", sink).ok());
}

// Damaged lines must give an error or an event, never a crash.
TEST(EventReaderTest, SurvivesDamage) {
  std::mt19937 random(20260102);
  const std::vector<std::string> lines = EveryKind();
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string line = lines[round % lines.size()];
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0 && !line.empty(); --edits) {
      const size_t at = random() % line.size();
      switch (random() % 3) {
        case 0:
          line[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          line.erase(at, 1 + random() % 8);
          break;
        default:
          line.insert(at, line.substr(random() % line.size(), 1 + random() % 8));
      }
    }
    EventReader reader;
    Sink sink;
    if (!reader.Feed(line + "\n", sink).ok()) ++refused;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace latentforge::agent
