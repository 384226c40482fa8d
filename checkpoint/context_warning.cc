#include "checkpoint/context_warning.h"

#include "absl/strings/str_cat.h"

namespace latentforge::checkpoint {

std::string ContextWarning(const ModelConfig& config, const std::string& what, int64_t tokens) {
  const int64_t context = config.max_position_embeddings;
  if (context <= 0 || tokens <= context) return "";
  return absl::StrCat(what, " of ", tokens, " tokens are longer than the model's context of ",
                      context);
}

absl::Status CheckContext(const ModelConfig& config, const std::string& what, int64_t tokens) {
  if (config.rotary() || tokens <= config.max_position_embeddings) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(ContextWarning(config, what, tokens),
                                                 ", and its positions are learned: expected at "
                                                 "most that many"));
}

}  // namespace latentforge::checkpoint
