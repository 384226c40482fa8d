#include "worker/calibrate/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/sha256.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::calibrate {
namespace {

using testing::HasSubstr;

class CorpusTest : public testing::Test {
 protected:
  std::filesystem::path Write(absl::string_view name, absl::string_view contents) {
    const std::filesystem::path path = folder_ / std::string(name);
    EXPECT_TRUE(WriteFileAtomic(path, contents).ok());
    return path;
  }

  static std::string Message(const absl::StatusOr<CorpusText>& result) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  }

  std::filesystem::path folder_ = checkpoint::NewTestDirectory("corpus");
};

TEST_F(CorpusTest, PlainTextIsTakenAsItIs) {
  const std::string text = "One.\n\nTwo: \xC3\xA9 \xF0\x9F\x98\x80\n";
  const auto corpus = ReadCorpus(Write("a.txt", text), "");
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->text, text);
  EXPECT_EQ(corpus->sha256, Sha256Hex(text));
  EXPECT_FALSE(corpus->truncated);
}

TEST_F(CorpusTest, JsonLinesAreJoinedByBlankLines) {
  const auto corpus = ReadCorpus(
      Write("a.jsonl", "{\"text\":\"one\",\"n\":1}\r\n\n{\"text\":\"two\"}\n{\"text\":\"\"}\n"),
      "text");
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->text, "one\n\ntwo");
}

TEST_F(CorpusTest, ErrorsNameFileAndPlace) {
  EXPECT_THAT(Message(ReadCorpus(Write("empty.txt", ""), "")),
              HasSubstr("empty.txt holds no text"));
  EXPECT_THAT(Message(ReadCorpus(Write("blank.txt", " \n\t"), "")), HasSubstr("holds no text"));
  EXPECT_THAT(Message(ReadCorpus(Write("bad.txt", "ab\nc\xFFz"), "")),
              testing::AllOf(HasSubstr("bad.txt: byte 4 (line 2) is 0xff"), HasSubstr("UTF-8")));
  EXPECT_THAT(Message(ReadCorpus(Write("a.jsonl", "{\"text\":\"x\"}"), "")),
              HasSubstr("no text field is named"));
  EXPECT_THAT(Message(ReadCorpus(Write("b.jsonl", "{\"text\":\"x\"}\n{\"body\":\"y\"}"), "text")),
              testing::AllOf(HasSubstr("b.jsonl: line 2"), HasSubstr("lacks \"text\"")));
  EXPECT_THAT(Message(ReadCorpus(Write("c.jsonl", "{\"text\":3}"), "text")),
              testing::AllOf(HasSubstr("line 1"), HasSubstr("\"text\" is 3")));
  EXPECT_THAT(Message(ReadCorpus(Write("d.jsonl", "{\"text\":\"x\"}\n{"), "text")),
              testing::AllOf(HasSubstr("line 2"), HasSubstr("invalid JSON")));
  EXPECT_THAT(Message(ReadCorpus(Write("e.jsonl", "[1]"), "text")), HasSubstr("line 1"));
  EXPECT_EQ(ReadCorpus(folder_ / "absent.txt", "").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CorpusTest, LargeFilesEndAtALine) {
  const auto corpus = ReadCorpus(Write("big.txt", "first\nsecond\nthird\n"), "", 15);
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->text, "first\nsecond\n");
  EXPECT_TRUE(corpus->truncated);
  EXPECT_THAT(Message(ReadCorpus(Write("line.txt", "one long line\n"), "", 5)),
              HasSubstr("no line end within its first 5 bytes"));
}

}  // namespace
}  // namespace latentforge::calibrate
