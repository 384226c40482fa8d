#include "absl/strings/str_cat.h"
#include "tests/service/validation_fixture.h"

namespace latentforge::service {
namespace {

class TextCheckTest : public ValidationFixture {
 protected:
  v1::JobSpec SpecWith(const std::string& text) const {
    std::ofstream(dir_.path() / "text.txt") << text;
    return Spec();
  }
};

TEST_F(TextCheckTest, WhatIsNoUtf8IsNamedByItsByte) {
  ExpectRefused(SpecWith(absl::StrCat(std::string(5000, 'a'), "\xff", std::string(5000, 'a'))),
                "MALFORMED_CORPUS", {"text.txt: byte 5000 is 0xff, which is not UTF-8"});
  // A character across the end of what is looked at, and anything behind it.
  EXPECT_TRUE(
      Check(SpecWith(absl::StrCat(std::string((1 << 20) - 1, 'a'), "\xe2\x82\xac\xff"))).ok());
}

TEST_F(TextCheckTest, AWordHoldsNoCalibration) {
  ExpectRefused(SpecWith("word\n"), "TOO_FEW_TOKENS",
                {"sequences: asks for", "the calibration texts, which can hold 80 at most"});
}

TEST_F(TextCheckTest, CountsWhatIsHeldBackForEvaluation) {
  v1::JobSpec spec = SpecWith(std::string(1000, 'a'));  // 16,000 tokens at most
  spec.mutable_calibration()->set_sequences(100);
  spec.mutable_calibration()->set_sequence_length(100);
  spec.mutable_evaluation()->set_windows(60);
  spec.mutable_evaluation()->set_window_length(100);
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
  spec.mutable_evaluation()->set_windows(61);
  ExpectRefused(spec, "TOO_FEW_TOKENS", {"asks for 16100 tokens"});
  std::ofstream(dir_.path() / "evaluation.txt") << std::string(381, 'a');
  spec.mutable_evaluation()->mutable_corpus()->set_uri((dir_.path() / "evaluation.txt").string());
  ExpectRefused(spec, "TOO_FEW_TOKENS",
                {"spec.evaluation.windows", "asks for 6100 tokens of the evaluation text"});
  std::ofstream(dir_.path() / "evaluation.txt") << std::string(382, 'a');
  EXPECT_TRUE(Check(spec).ok()) << Check(spec).status();
}

TEST_F(TextCheckTest, SequencesHaveTwoTokensAtLeast) {
  v1::JobSpec spec = Spec();
  spec.mutable_calibration()->set_sequence_length(1);
  ExpectRefused(spec, kInvalidField, {"sequence_length", "is 1, expected at least 2"});
}

}  // namespace
}  // namespace latentforge::service
