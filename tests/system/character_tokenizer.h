// A tokenizer for tiny checkpoints that real programs convert.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "base/json.h"

namespace latentforge {

inline constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz .,\n";

// One token a character.
inline Json CharacterTokenizer() {
  Json vocabulary = {{"?", 0}};
  for (const char c : absl::string_view(kAlphabet)) {
    vocabulary[std::string(1, c)] = vocabulary.size();
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Split"},
            {"pattern", {{"Regex", "(?s)."}}},
            {"behavior", "Isolated"},
            {"invert", false}}},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "?"}}}};
}

}  // namespace latentforge
