// A whole conversion in a temporary folder: tiny random model, tokenizer of
// letters, text, and the job specification that converts it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::convert {

// Letters and the space, each its own token.
inline std::string TinyTokenizerJson() {
  Json vocab = Json::object();
  for (int i = 0; i < 26; ++i) vocab[std::string(1, char('a' + i))] = i;
  vocab[" "] = 26;
  vocab["?"] = 27;
  return WriteJson({{"version", "1.0"},
                    {"truncation", nullptr},
                    {"padding", nullptr},
                    {"added_tokens", Json::array()},
                    {"normalizer", nullptr},
                    {"pre_tokenizer", nullptr},
                    {"post_processor", nullptr},
                    {"decoder", {{"type", "Fuse"}}},
                    {"model",
                     {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", "?"},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"vocab", vocab},
                      {"merges", Json::array()}}}});
}

// `length` tokens of TinyTokenizerJson.
inline std::string RandomText(size_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(length, ' ');
  for (char& c : text) c = "abcdefghijklmnopqrstuvwxyz "[random() % 27];
  return text;
}

struct TinyJob {
  explicit TinyJob(const std::string& name, checkpoint::TinyOptions options = {})
      : root(checkpoint::NewTestDirectory(name)) {
    EXPECT_TRUE(checkpoint::WriteTinyCheckpoint(root / "model", options).ok());
    EXPECT_TRUE(WriteFileAtomic(root / "model" / "tokenizer.json", TinyTokenizerJson()).ok());
    EXPECT_TRUE(WriteFileAtomic(root / "text.txt", RandomText(800, 1)).ok());
    EXPECT_TRUE(WriteFileAtomic(root / "eval.txt", RandomText(200, 2)).ok());
    spec = {{"source", {{"uri", (root / "model").string()}}},
            {"budget", {{"kvBudget", 0.5}}},
            {"calibration",
             {{"corpora", {{{"uri", (root / "text.txt").string()}}}},
              {"sequences", 8},
              {"sequenceLength", 32},
              {"seed", "5"}}},
            {"evaluation",
             {{"corpus", {{"uri", (root / "eval.txt").string()}}},
              {"windows", 3},
              {"windowLength", 32}}},
            {"output", {{"uri", (root / "out").string()}}},
            {"dtype", "DATA_TYPE_FLOAT32"},
            {"device", "cpu"},
            {"threads", 1}};
  }

  std::filesystem::path out() const { return root / "out"; }
  std::filesystem::path work() const { return root / "work"; }

  // Names beside model, texts, work and spec: the output and its partial forms.
  std::vector<std::string> Outputs() const {
    std::vector<std::string> outputs;
    const std::vector<std::string> entries = ListDirectory(root).value();
    for (const std::string& entry : entries) {
      if (entry.rfind("out", 0) == 0) outputs.push_back(entry);
    }
    return outputs;
  }

  std::filesystem::path root;
  Json spec;
};

}  // namespace latentforge::convert
