#include "checkpoint/tokenizer_file.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using testing::HasSubstr;

TEST(TokenizerJsonTest, TakesVocabulariesOfEachKind) {
  for (const char* text : {
           R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})",
           R"({"model": {"vocab": {"a": 0}, "merges": []}, "decoder": null})",  // before "type"
           R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.5]]}})",
       }) {
    EXPECT_TRUE(CheckTokenizerJson(text).ok()) << text << ": " << CheckTokenizerJson(text);
  }
}

TEST(TokenizerJsonTest, SaysWhatIsWrong) {
  const struct {
    const char* text;
    const char* problem;
  } kCases[] = {
      {"", "is no valid JSON: syntax error at byte 1"},
      {"version https://git-lfs.github.com/spec/v1\n", "is no valid JSON"},
      {R"({"model": {"vocab": {}}} trailing)", "is no valid JSON"},
      {R"({"model": {"vocab": {"a": 0)", "is no valid JSON"},
      {"{}", "lacks \"model\""},
      {"[]", "holds an array, expected a JSON object"},
      {R"({"model": null})", "has null as \"model\", expected an object"},
      {R"({"model": [{"vocab": {}}]})", "has an array as \"model\""},
      {R"({"model": {}})", "lacks the \"vocab\""},
      {R"({"model": {"type": "BPE", "merges": {"vocab": {}}}})", "lacks the \"vocab\""},
      {R"({"vocab": {}, "model": {}, "other": {"vocab": {}}})", "lacks the \"vocab\""},
      {R"({"model": {"vocab": "abc"}})", "has a string as \"vocab\""},
  };
  for (const auto& [text, problem] : kCases) {
    const absl::Status status = CheckTokenizerJson(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("tokenizer.json ", problem)));
  }
}

TEST(TokenizerJsonTest, SurvivesAnyDepth) {
  const std::string deep(2'000'000, '[');
  EXPECT_EQ(CheckTokenizerJson(deep).code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerFileTest, NamesTheFile) {
  const std::filesystem::path dir = NewTestDirectory("tokenizer");
  const absl::Status absent = CheckTokenizerFile(dir);
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.message()), HasSubstr((dir / "tokenizer.json").string()));

  ASSERT_TRUE(WriteFileAtomic(dir / "tokenizer.json", "{}").ok());
  const absl::Status useless = CheckTokenizerFile(dir);
  EXPECT_EQ(useless.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(useless.message()), HasSubstr(dir.string()));

  std::filesystem::resize_file(dir / "tokenizer.json", uintmax_t{65} << 20);
  EXPECT_EQ(CheckTokenizerFile(dir).code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(RemoveTree(dir).ok());
}

}  // namespace
}  // namespace latentforge::checkpoint
