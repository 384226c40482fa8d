#include "checkpoint/context_warning.h"

#include "absl/strings/str_cat.h"

namespace latentforge::checkpoint {

std::string ContextWarning(const ModelConfig& config, const std::string& what, int64_t tokens) {
  const int64_t context = config.max_position_embeddings;
  if (context <= 0 || tokens <= context) return "";
  return absl::StrCat(what, " of ", tokens, " tokens are longer than the model's context of ",
                      context);
}

}  // namespace latentforge::checkpoint
