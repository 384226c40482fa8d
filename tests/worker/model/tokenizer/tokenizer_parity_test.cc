// Token for token what transformers gives, on real tokenizer.json files.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/tokenizer/tokenizer.h"

namespace latentforge::model {
namespace {

namespace fs = std::filesystem;

const fs::path kDeps = LATENTFORGE_DEPS_DIR;

std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path << " is missing; scripts/test puts it there";
  return {std::istreambuf_iterator<char>(file), {}};
}

// Scripts, emoji with joiners, combining marks, code, numbers, blanks, names of
// special tokens and near misses.
const char* const kTexts[] = {
    "",
    " ",
    "Hello, world! It's 1985; we'll've paid $1,234,567.89 (or 3.14e-10)...",
    "  leading,   inner\t\ttabs \r\n\r\n and trailing blanks   \n",
    "def f(x):\n    return {\"k\": [x**2, 0xDEADBEEF]}  # naïve\n\n\n\nclass A: pass",
    "Ünïcödé Straße ﬁ ﬂ Å Å Ω Ω é e\u0301 ı İ ß ẞ ſ",
    "Привет, мир! Ελληνικά κείμενο. שלום עולם. مرحبا بالعالم ١٢٣ हिन्दी १२३ ไทย ภาษา",
    "日本語のテキスト、中文文本。한국어 텍스트 １２３ ｆｕｌｌ　ｗｉｄｔｈ",
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷 ☺️ ✊🏿 \U0001F9D1\u200D\U0001F680 "
    "𝔘𝔫𝔦 "
    "𐍈 "
    "\U0010FFFF",
    "a\u0002b\u0001\u007F\u0085\u00A0\u1680\u2028\u2029\u200B\u2060\uFEFF\uFFFD\uFFFE",
    "<s></s><unk><pad><bos><eos><|endoftext|><|im_start|>user\nHi<|im_end|>",
    ("<|begin_of_text|><|start_header_id|>x<|end_header_id|>\n\n<|eot_id|> "
     "<start_of_turn>a<end_of_turn>"),
    "<s ></ s><|im_start |>< s><0x41><0xFF>▁▁under▁score <think>x</think> [INST] [/INST]",
};

void AppendUtf8(char32_t c, std::string& text) {
  if (c < 0x80) {
    text += static_cast<char>(c);
    return;
  }
  const int tail = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr int kLead[] = {0, 0xC0, 0xE0, 0xF0};
  text += static_cast<char>(kLead[tail] | (c >> (6 * tail)));
  for (int i = tail - 1; i >= 0; --i) text += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3F));
}

// Half ASCII, the rest from blocks that tokenizers treat specially, from the BMP and
// from all planes.
std::string RandomText(std::mt19937& random) {
  constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x20, 0x7E},       {0x20, 0x7E},   {0x00, 0x20},     {0x30, 0x39},       {0x61, 0x7A},
      {0x61, 0x7A},       {0x80, 0x24F},  {0x300, 0x36F},   {0x2000, 0x206F},   {0xAC00, 0xD7A3},
      {0x1F300, 0x1F6FF}, {0x80, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  std::string text;
  const uint32_t runs = below(30);
  for (uint32_t run = 0; run < runs; ++run) {
    const auto [first, last] = kRanges[below(std::size(kRanges))];
    const uint32_t repeats = below(4) == 0 ? 1 + below(12) : 1;
    const uint32_t characters = 1 + below(5);
    for (uint32_t i = 0; i < characters; ++i) {
      const char32_t c = first + below(last - first + 1);
      for (uint32_t j = 0; j < repeats; ++j) AppendUtf8(c, text);
    }
  }
  return text;
}

std::vector<std::string> Texts() {
  std::vector<std::string> texts(std::begin(kTexts), std::end(kTexts));
  std::mt19937 random(20240521);
  for (int i = 0; i < 400; ++i) texts.push_back(RandomText(random));
  const std::string prose = ReadText(kDeps / "text/evaluation.txt");
  texts.push_back(prose.substr(0, prose.find('\n', 200000)));
  return texts;
}

// The real files, by the folder below kDeps.
const char* const kFolders[] = {"tokenizers/llama2", "tokenizers/llama3", "tokenizers/gemma3",
                                "tokenizers/qwen3", "models/smollm2-135m-instruct"};

fs::path TokenizerPath(const std::string& folder) { return kDeps / folder / "tokenizer.json"; }

class TokenizerParityTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Starting transformers is what takes time, so one process answers for all files.
  static void SetUpTestSuite() {
    texts_ = Texts();
    Json paths;
    for (const char* folder : kFolders) paths[folder] = TokenizerPath(folder).string();
    const fs::path work = fs::path(::testing::TempDir()) / "tokenizer_parity_test";
    fs::create_directories(work);
    std::ofstream(work / "request.json") << Json({{"tokenizers", paths}, {"texts", texts_}});
    const fs::path script =
        fs::path(LATENTFORGE_SOURCE_DIR) / "tests/worker/model/tokenizer/reference.py";
    const std::string command =
        absl::StrCat("cd '", work.string(), "' && '", (kDeps / "venv-parity/bin/python").string(),
                     "' '", script.string(), "' request.json answer.json");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    const absl::StatusOr<Json> answer = ParseJson(ReadText(work / "answer.json"));
    ASSERT_TRUE(answer.ok()) << answer.status();
    reference_ = *answer;
    fs::remove_all(work);
  }

  static inline std::vector<std::string> texts_;
  static inline Json reference_;
};

TEST_P(TokenizerParityTest, EqualsTransformers) {
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(TokenizerPath(GetParam()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_TRUE(reference_.contains(GetParam()));
  const Json& reference = reference_[GetParam()];
  EXPECT_EQ(tokenizer->vocab_size(), reference["vocab_size"]);
  ASSERT_EQ(reference["texts"].size(), texts_.size());
  for (size_t i = 0; i < texts_.size(); ++i) {
    SCOPED_TRACE(
        Json(texts_[i].substr(0, 400)).dump(-1, ' ', true, Json::error_handler_t::replace));
    const Json& expected = reference["texts"][i];
    const std::vector<int32_t> special = expected["special"];
    ASSERT_EQ(tokenizer->Encode(texts_[i], false).value(), expected["plain"]);
    ASSERT_EQ(tokenizer->Encode(texts_[i], true).value(), special);
    ASSERT_EQ(tokenizer->Decode(special, false).value(), expected["decoded"]);
    ASSERT_EQ(tokenizer->Decode(special, true).value(), expected["decoded_plain"]);
  }
}

INSTANTIATE_TEST_SUITE_P(Real, TokenizerParityTest, ::testing::ValuesIn(kFolders),
                         [](const auto& info) {
                           return fs::path(info.param).filename().string().substr(0, 6);
                         });

TEST(SmolTokenizerTest, DigitsStandAlone) {
  const auto tokenizer = Tokenizer::Load(TokenizerPath("models/smollm2-135m-instruct"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("The year 1985 was", true).value(),
              ::testing::ElementsAre(504, 713, 216, 33, 41, 40, 37, 436));
}

}  // namespace
}  // namespace latentforge::model
