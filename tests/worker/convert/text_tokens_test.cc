#include "worker/convert/text_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/convert/tiny_job.h"

namespace latentforge::convert {
namespace {

using testing::ElementsAre;

// TinyTokenizerJson with the merge "ab" (id 40) and a BOS (id 41) in front.
absl::StatusOr<model::Tokenizer> LoadTokenizer() {
  Json json = ParseJson(TinyTokenizerJson()).value();
  json["model"]["vocab"]["ab"] = 40;
  json["model"]["vocab"]["\n"] = 28;
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  json["added_tokens"] = {{{"id", 41},
                           {"content", "<s>"},
                           {"single_word", false},
                           {"lstrip", false},
                           {"rstrip", false},
                           {"normalized", false},
                           {"special", true}}};
  const Json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({bos, text})},
      {"pair", Json::array({bos, text, second})},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {41}}, {"tokens", {"<s>"}}}}}}};
  const auto path = checkpoint::NewTestDirectory("text_tokens") / "tokenizer.json";
  EXPECT_TRUE(WriteFileAtomic(path, WriteJson(json)).ok());
  return model::Tokenizer::Load(path);
}

TEST(TextTokensTest, OnePieceAndManyAgreeBetweenLines) {
  const auto tokenizer = LoadTokenizer();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string text = "ab\ncab\nabc\n";
  const auto whole = TokenizeText(*tokenizer, text);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_THAT(*whole, ElementsAre(41, 40, 28, 2, 40, 28, 40, 2, 28));
  for (size_t piece = 4; piece <= text.size(); ++piece) {
    EXPECT_EQ(TokenizeText(*tokenizer, text, piece).value(), *whole) << "pieces of " << piece;
  }
}

TEST(TextTokensTest, LongLinesAreCutBetweenCharacters) {
  const auto tokenizer = LoadTokenizer();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // Two-byte characters, unknown to the vocabulary; a cut inside one would fail.
  const std::string text = "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9";
  for (size_t piece = 2; piece <= text.size(); ++piece) {
    EXPECT_EQ(TokenizeText(*tokenizer, text, piece).value().size(), 5u) << "pieces of " << piece;
  }
  EXPECT_THAT(TokenizeText(*tokenizer, "").value(), ElementsAre(41));
}

TEST(TextTokensTest, CutsAreAtLineEndsBeforeWords) {
  EXPECT_EQ(PieceSize("one\ntwo\nthree", 100), 13u);
  EXPECT_EQ(PieceSize("one\ntwo\nthree", 10), 8u);
  EXPECT_EQ(PieceSize("one\n two\n\n\n\nsix", 13), 4u);
  EXPECT_EQ(PieceSize(" \n = A = \n \n Robert", 16), 12u);
  // No such place: the last line end, else whole characters.
  EXPECT_EQ(PieceSize("one\n\ntwo\n\nsix", 11), 10u);
  EXPECT_EQ(PieceSize("one\xC3\xA9", 4), 3u);
}

TEST(TextTokensTest, AnErrorComesBackFromTheThread) {
  const auto tokenizer = LoadTokenizer();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const absl::Status status = TokenizeText(*tokenizer, "ab\xFF").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

}  // namespace
}  // namespace latentforge::convert
