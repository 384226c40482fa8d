// Inputs that cannot be converted: one clear error, nothing left behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/unique_fd.h"
#include "tests/worker/convert/tiny_job.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/pipeline.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct Case {
  const char* name;
  const char* reason;
  const char* text;  // part of the message
  std::function<void(TinyJob&)> spoil;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

void Rewrite(const fs::path& path, const std::function<void(std::string&)>& change) {
  std::string bytes = ReadFile(path).value();
  change(bytes);
  ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
}

const Case kCases[] = {
    {"no_source", "SOURCE_NOT_READABLE", "absent",
     [](TinyJob& job) { job.spec["source"]["uri"] = (job.root / "absent").string(); }},
    {"unknown_architecture", "UNSUPPORTED_ARCHITECTURE", "gpt_neox",
     [](TinyJob& job) {
       Rewrite(job.root / "model/config.json", [](std::string& text) {
         Json config = ParseJson(text).value();
         config["model_type"] = "gpt_neox";
         text = WriteJson(config);
       });
     }},
    {"missing_config_key", "MALFORMED_CONFIG", "hidden_size",
     [](TinyJob& job) {
       Rewrite(job.root / "model/config.json", [](std::string& text) {
         Json config = ParseJson(text).value();
         config.erase("hidden_size");
         text = WriteJson(config);
       });
     }},
    {"truncated_weights", "MALFORMED_SAFETENSORS", "model.safetensors",
     [](TinyJob& job) {
       Rewrite(job.root / "model/model.safetensors",
               [](std::string& bytes) { bytes.resize(bytes.size() - 10); });
     }},
    {"weights_of_another_model", "MALFORMED_CHECKPOINT", "from config.json",
     [](TinyJob& job) {
       Rewrite(job.root / "model/config.json", [](std::string& text) {
         Json config = ParseJson(text).value();
         config["vocab_size"] = config["vocab_size"].get<int>() + 1;
         text = WriteJson(config);
       });
     }},
    {"nan_weight", "SOURCE_CORRUPT", "",
     [](TinyJob& job) {
       Rewrite(job.root / "model/model.safetensors", [](std::string& bytes) {
         const float nan = std::nanf("");
         bytes.replace(bytes.size() - 4, 4, reinterpret_cast<const char*>(&nan), 4);
       });
     }},
    {"no_tokenizer", "SOURCE_NOT_READABLE", "tokenizer.json",
     [](TinyJob& job) { fs::remove(job.root / "model/tokenizer.json"); }},
    {"bad_tokenizer", "MALFORMED_TOKENIZER", "tokenizer.json",
     [](TinyJob& job) {
       Rewrite(job.root / "model/tokenizer.json", [](std::string& text) { text = "{\"a\":1}"; });
     }},
    {"token_beyond_the_vocabulary", "MALFORMED_TOKENIZER", "gives token 70000 in",
     [](TinyJob& job) {
       Rewrite(job.root / "model/tokenizer.json", [](std::string& text) {
         Json tokenizer = ParseJson(text).value();
         tokenizer["model"]["vocab"]["e"] = 70000;
         text = WriteJson(tokenizer);
       });
     }},
    {"no_text", "CORPUS_NOT_READABLE", "text.txt",
     [](TinyJob& job) { fs::remove(job.root / "text.txt"); }},
    {"empty_text", "MALFORMED_CORPUS", "text.txt holds no text",
     [](TinyJob& job) { Rewrite(job.root / "text.txt", [](std::string& text) { text = ""; }); }},
    {"text_not_utf8", "MALFORMED_CORPUS", "byte 3",
     [](TinyJob& job) {
       Rewrite(job.root / "text.txt", [](std::string& text) { text[3] = char(0xFF); });
     }},
    {"too_few_calibration_tokens", "TOO_FEW_TOKENS", "need 320",
     [](TinyJob& job) {
       Rewrite(job.root / "text.txt", [](std::string& text) { text.resize(300); });
       job.spec["calibration"]["sequences"] = 10;
     }},
    {"too_few_evaluation_tokens", "TOO_FEW_TOKENS", "--evaluate-windows",
     [](TinyJob& job) { job.spec["evaluation"]["windows"] = 7; }},
    {"budget_too_small", "RANK_OUT_OF_RANGE", "a budget of at least 0.03125",
     [](TinyJob& job) { job.spec["budget"]["kvBudget"] = 0.03; }},
    {"budget_too_small_for_two_latents", "RANK_OUT_OF_RANGE", "a budget of at least 0.0625",
     [](TinyJob& job) {
       job.spec["budget"]["kvBudget"] = 0.05;
       job.spec["factorization"] = {{"latent", "LATENT_LAYOUT_SEPARATE"}};
     }},
    {"rank_multiple_beyond_the_budget", "RANK_OUT_OF_RANGE", "a rank multiple of at most 16",
     [](TinyJob& job) {
       job.spec["factorization"] = {{"rankMultiple", 17}};
     }},
    {"uniform_rank_below_one_multiple", "RANK_OUT_OF_RANGE", "a rank multiple of at most 8",
     [](TinyJob& job) {
       job.spec["factorization"] = {{"preconditioner", "PRECONDITIONER_IDENTITY"},
                                    {"rankMultiple", 9}};
     }},
    {"profile_of_the_other_layout", "RANK_OUT_OF_RANGE", "rankK is 1, expected none in a joint",
     [](TinyJob& job) {
       job.spec["factorization"] = {{"allocation", "RANK_ALLOCATION_PROFILE"},
                                    {"latent", "LATENT_LAYOUT_JOINT"},
                                    {"rankProfile",
                                     {{"layers",
                                       {{{"layer", 0}, {"rankK", 1}, {"rankV", 1}},
                                        {{"layer", 1}, {"rankK", 1}, {"rankV", 1}}}}}}};
     }},
    {"text_labels_of_single_tokens", "INVALID_SPEC", "sequenceLength is 1",
     [](TinyJob& job) {
       job.spec["calibration"]["labels"] = "FISHER_LABELS_TEXT";
       job.spec["calibration"]["sequenceLength"] = 1;
     }},
    {"text_labels_without_fisher", "INVALID_SPEC", "labels is text",
     [](TinyJob& job) {
       job.spec["calibration"]["labels"] = "FISHER_LABELS_TEXT";
       job.spec["factorization"] = {{"preconditioner", "PRECONDITIONER_IDENTITY"}};
     }},
    {"weights_without_effect", "SOURCE_CORRUPT", "all spectra are zero",
     [](TinyJob& job) {
       Rewrite(job.root / "model/model.safetensors", [](std::string& bytes) {
         uint64_t header = 0;
         std::memcpy(&header, bytes.data(), 8);
         std::fill(bytes.begin() + 8 + int64_t(header), bytes.end(), '\0');
       });
     }},
    {"rank_above_width", "RANK_OUT_OF_RANGE", "rankV is 17",
     [](TinyJob& job) {
       job.spec["budget"]["kvBudget"] = 1;
       job.spec["factorization"] = {{"allocation", "RANK_ALLOCATION_PROFILE"},
                                    {"rankProfile",
                                     {{"layers",
                                       {{{"layer", 0}, {"rankK", 1}, {"rankV", 1}},
                                        {{"layer", 1}, {"rankK", 1}, {"rankV", 17}}}}}}};
     }},
    {"output_not_empty", "OUTPUT_NOT_EMPTY", "out",
     [](TinyJob& job) {
       ASSERT_TRUE(CreateDirectories(job.out()).ok());
       ASSERT_TRUE(WriteFileAtomic(job.out() / "mine.txt", "x").ok());
     }},
    {"output_that_cannot_be_made", "OUTPUT_NOT_WRITABLE", "no folder can be made in /proc",
     [](TinyJob& job) { job.spec["output"]["uri"] = "/proc/out"; }},
    {"no_such_device", "DEVICE_UNAVAILABLE", "tpu",
     [](TinyJob& job) { job.spec["device"] = "tpu"; }},
    {"already_converted", "ALREADY_CONVERTED", "already converted",
     [](TinyJob& job) {
       job.spec["source"]["uri"] = (job.root / "converted").string();
       checkpoint::TinyOptions options;
       options.ranks = {{.k = 4, .v = 4}, {.k = 4, .v = 4}};
       ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(job.root / "converted", options).ok());
     }},
};

class BadInputTest : public testing::TestWithParam<Case> {};

TEST_P(BadInputTest, IsOneUserErrorAndLeavesNothing) {
  TinyJob job("bad_input");
  GetParam().spoil(job);
  const std::vector<std::string> before = job.Outputs();
  const auto spec = ParseJobSpec(WriteJson(job.spec));
  ASSERT_TRUE(spec.ok()) << spec.status();
  const fs::path path = job.root / "events.jsonl";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  EventWriter events(fd.get(), RealClock());
  const absl::Status status =
      RunConversion(*spec, {job.work(), job.root / "statistics"}, events, StopToken(), RealClock());
  const ErrorInfo info = DescribeError(status);
  EXPECT_EQ(info.reason, GetParam().reason) << status;
  EXPECT_EQ(info.error_class, ErrorClass::kUser);
  EXPECT_FALSE(info.retryable);
  EXPECT_EQ(ExitCode(status), 1);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().text));

  const std::string text = ReadFile(path).value();
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  ASSERT_FALSE(lines.empty());
  const Json last = ParseJson(lines.back()).value();
  EXPECT_EQ(last["error"]["reason"], GetParam().reason);
  EXPECT_EQ(last["error"]["errorClass"], "ERROR_CLASS_USER");
  EXPECT_EQ(job.Outputs(), before);
}

INSTANTIATE_TEST_SUITE_P(All, BadInputTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace latentforge::convert
