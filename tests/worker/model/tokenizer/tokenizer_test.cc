// What the class promises, on a byte-level tokenizer of a few entries.
#include "worker/model/tokenizer/tokenizer.h"

#include <fstream>
#include <thread>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Characters a and b, the merge ab, an unknown token, and a BOS that the
// post-processor puts first. No token has id 4 or 5.
constexpr char kTokenizerJson[] = R"({
  "version": "1.0",
  "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
  "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
              "pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"},
  "added_tokens": [{"id": 6, "content": "<s>", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}],
  "normalizer": null, "pre_tokenizer": null, "decoder": {"type": "Fuse"},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}}},
  "model": {"type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "?": 3, "<s>": 6}, "merges": [["a", "b"]]}
})";

class TokenizerTest : public ::testing::Test {
 protected:
  absl::StatusOr<Tokenizer> LoadText(const std::string& json) {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    const std::filesystem::path path =
        std::filesystem::path(::testing::TempDir()) / absl::StrCat(test->name(), ".json");
    std::ofstream(path) << json;
    absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(path);
    std::filesystem::remove(path);
    return tokenizer;
  }
};

TEST_F(TokenizerTest, EncodesWholeTextWithoutTheFilesTruncationAndPadding) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadText(kTokenizerJson);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("abbab", false).value(), ElementsAre(2, 1, 2));
  EXPECT_THAT(tokenizer->Encode("abc", false).value(), ElementsAre(2, 3));
}

TEST_F(TokenizerTest, AddsSpecialTokensOnlyWhenAsked) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadText(kTokenizerJson);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("", false).value(), IsEmpty());
  EXPECT_THAT(tokenizer->Encode("", true).value(), ElementsAre(6));
  EXPECT_THAT(tokenizer->Encode("ab", true).value(), ElementsAre(6, 2));
  EXPECT_THAT(tokenizer->Encode("a<s>b", false).value(), ElementsAre(0, 6, 1));
}

TEST_F(TokenizerTest, DecodesWithAndWithoutSpecialTokens) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadText(kTokenizerJson);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->Decode({6, 2, 1}, false).value(), "<s>abb");
  EXPECT_EQ(tokenizer->Decode({6, 2, 1}, true).value(), "abb");
  EXPECT_EQ(tokenizer->Decode({}, true).value(), "");
}

TEST_F(TokenizerTest, VocabSizeCountsUpToTheLargestId) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadText(kTokenizerJson);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 7);
}

TEST_F(TokenizerTest, NamesTheByteThatIsNotUtf8) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadText(kTokenizerJson);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // A stray byte, an overlong NUL, a surrogate, a character cut short, beyond U+10FFFF.
  for (const char* bytes : {"ab\xFFz", "ab\xC0\x80", "ab\xED\xA0\x80", "ab\xE2\x82", "ab\xF5z"}) {
    const auto ids = tokenizer->Encode(bytes, false);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("not UTF-8 at byte 2"));
  }
  EXPECT_THAT(tokenizer->Encode(absl::string_view("a\0b", 3), false).value(), ElementsAre(0, 3, 1));
}

TEST_F(TokenizerTest, RefusesIdsOutsideTheVocabulary) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadText(kTokenizerJson);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto message = [&](std::vector<int32_t> ids) {
    const absl::Status status = tokenizer->Decode(ids, false).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({0, 7}), HasSubstr("token 1 is 7, which the vocabulary of 7 ids lacks"));
  EXPECT_THAT(message({4}), HasSubstr("token 0 is 4"));
  EXPECT_THAT(message({0, 1, -3}), HasSubstr("token 2 is -3"));
}

TEST_F(TokenizerTest, RefusesWhatIsNoTokenizer) {
  const std::string good = kTokenizerJson;
  const std::string deep(100000, '[');
  for (const std::string& text : {std::string(), std::string("{}"), good.substr(0, 900), deep,
                                  std::string("\xFF\xFE"), "[" + good + "]"}) {
    const absl::Status status = LoadText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 20);
    EXPECT_THAT(std::string(status.message()), HasSubstr("RefusesWhatIsNoTokenizer.json: "));
  }
}

TEST_F(TokenizerTest, RefusesAnEmptyVocabularyAndHugeIds) {
  std::string json = kTokenizerJson;
  json.replace(json.find("\"b\": 1"), 6, "\"b\": 4294967295");
  EXPECT_THAT(std::string(LoadText(json).status().message()),
              HasSubstr("token id 4294967295 does not fit 31 bits"));
  EXPECT_THAT(std::string(LoadText(R"({"version": "1.0", "added_tokens": [], "model":
                {"type": "BPE", "vocab": {}, "merges": []}})")
                              .status()
                              .message()),
              HasSubstr("the vocabulary is empty"));
}

TEST_F(TokenizerTest, MissingFileIsNotFound) {
  const absl::Status status = Tokenizer::Load("/nonexistent/tokenizer.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/tokenizer.json"));
}

TEST_F(TokenizerTest, WorksAfterMovesAndFromSeveralThreads) {
  absl::StatusOr<Tokenizer> loaded = LoadText(kTokenizerJson);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  Tokenizer first = *std::move(loaded);
  absl::StatusOr<Tokenizer> other = LoadText(kTokenizerJson);
  ASSERT_TRUE(other.ok()) << other.status();
  *other = std::move(first);
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (std::vector<int32_t>& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) result = other->Encode("abbabc", true).value();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<int32_t>& result : results) {
    EXPECT_THAT(result, ElementsAre(6, 2, 1, 2, 3));
  }
}

}  // namespace
}  // namespace latentforge::model
