#include "worker/convert/sealed_json.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace latentforge::convert {
namespace {

constexpr int64_t kMostBytes = int64_t{64} << 20;

}  // namespace

absl::Status WriteSealedJson(const std::filesystem::path& path, const Json& content) {
  const Json sealed = {{"content", content}, {"sha256", Sha256Hex(WriteJson(content))}};
  return WriteFileAtomic(path, WriteJson(sealed) + "\n");
}

absl::StatusOr<Json> ReadSealedJson(const std::filesystem::path& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMostBytes);
  if (absl::IsOutOfRange(text.status())) return absl::DataLossError(text.status().message());
  LF_RETURN_IF_ERROR(text.status());
  const absl::StatusOr<Json> sealed = ParseJson(*text);
  if (sealed.ok() && sealed->is_object() && sealed->size() == 2 && sealed->contains("content") &&
      sealed->contains("sha256") && WriteJson(*sealed) + "\n" == *text &&
      (*sealed)["sha256"] == Sha256Hex(WriteJson((*sealed)["content"]))) {
    return (*sealed)["content"];
  }
  return absl::DataLossError(absl::StrCat(path.string(), " is not as it was written"));
}

}  // namespace latentforge::convert
