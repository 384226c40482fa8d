#include "base/log.h"

#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

using testing::EndsWith;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { ConfigureLog(LogFormat::kText, Severity::kInfo); }

  static std::string LineOf(absl::string_view message, const LogFields& fields = {}) {
    testing::internal::CaptureStderr();
    Log(Severity::kWarning, message, fields);
    return testing::internal::GetCapturedStderr();
  }
};

TEST_F(LogTest, WordsAreWrittenAsTheyAre) {
  EXPECT_THAT(LineOf("audit", {{"subject", "alice"}, {"job", ""}, {"path", "/a/\xC3\xA9"}}),
              EndsWith(" warning audit subject=alice job= path=/a/\xC3\xA9\n"));
}

TEST_F(LogTest, NoValueForgesAFieldOrALine) {
  EXPECT_THAT(LineOf("m", {{"a", "x b=y"}, {"c", "say \"hi\" \\n"}}),
              EndsWith(R"( m a="x b=y" c="say \"hi\" \\n")"
                       "\n"));
  const std::string line =
      LineOf("bad\nmessage", {{"a", "1\n2026-01-01T00:00:00.000Z info audit"}, {"b", "\x1B[2J"}});
  EXPECT_THAT(line, EndsWith(" bad\\nmessage a=\"1\\n2026-01-01T00:00:00.000Z info audit\" "
                             "b=\"\\x1b[2J\"\n"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

TEST_F(LogTest, JsonLinesHoldWhateverIsSaid) {
  ConfigureLog(LogFormat::kJson, Severity::kInfo);
  const auto line = ParseJson(LineOf("a\nb", {{"c", "\"\n\x1B"}}));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->at("message"), "a\nb");
  EXPECT_EQ(line->at("c"), "\"\n\x1B");
}

}  // namespace
}  // namespace latentforge
