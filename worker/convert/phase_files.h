// Names of the files that phases leave in the scratch folder.
#pragma once

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "worker/convert/work_dir.h"

namespace latentforge::convert {

inline std::filesystem::path StatisticsPath(const WorkDir& work, int64_t layer) {
  return work.calibrate() / absl::StrCat("stats.", layer, ".safetensors");
}

inline std::filesystem::path LossStatisticsPath(const WorkDir& work, int64_t layer) {
  return work.calibrate() / absl::StrCat("loss.", layer, ".safetensors");
}

inline std::filesystem::path LinearMomentsPath(const WorkDir& work, int64_t layer) {
  return work.calibrate() / absl::StrCat("linear.", layer, ".safetensors");
}

inline std::filesystem::path LinearFisherPath(const WorkDir& work, int64_t layer) {
  return work.calibrate() / absl::StrCat("fisher.", layer, ".safetensors");
}

// Inputs of a layer's MLP.
inline std::filesystem::path MlpRowsPath(const WorkDir& work, int64_t layer) {
  return work.calibrate() / absl::StrCat("mlp.", layer, ".bin");
}

inline std::filesystem::path RanksPath(const WorkDir& work) {
  return work.factorize() / "ranks.json";
}

inline std::filesystem::path FactorsPath(const WorkDir& work, int64_t layer) {
  return work.factorize() / absl::StrCat("layer.", layer, ".safetensors");
}

inline std::filesystem::path HealingStatePath(const WorkDir& work) {
  return work.finetune() / "state.safetensors";
}

inline std::filesystem::path HealedFactorsPath(const WorkDir& work, int64_t layer) {
  return work.finetune() / absl::StrCat("layer.", layer, ".safetensors");
}

inline std::filesystem::path SearchPath(const WorkDir& work) {
  return work.evaluate() / "search.json";
}

// `kind` is "base", "converted" and so on.
inline std::filesystem::path WindowsPath(const WorkDir& work, absl::string_view kind) {
  return work.evaluate() / absl::StrCat(kind, ".json");
}

}  // namespace latentforge::convert
