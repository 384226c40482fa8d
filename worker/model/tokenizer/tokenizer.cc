#include "worker/model/tokenizer/tokenizer.h"

#include <malloc.h>

#include "absl/status/status.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/model/tokenizer/ffi/tokenizer_ffi.h"

namespace latentforge::model {
namespace {

// The largest known tokenizer.json has 33 MB.
constexpr int64_t kMaxFileBytes = int64_t{512} << 20;

void AssignBytes(void* context, const uint8_t* data, size_t size) {
  static_cast<std::string*>(context)->assign(reinterpret_cast<const char*>(data), size);
}

// The library refuses vocabularies whose ids do not fit 31 bits.
void AssignIds(void* context, const uint32_t* data, size_t size) {
  static_cast<std::vector<int32_t>*>(context)->assign(data, data + size);
}

const uint8_t* Bytes(absl::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

absl::Status ToStatus(int result, absl::string_view message) {
  switch (result) {
    case kLfOk:
      return absl::OkStatus();
    case kLfInvalid:
      return absl::InvalidArgumentError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace

void Tokenizer::Free::operator()(LfTokenizer* tokenizer) const {
  lf_tokenizer_free(tokenizer);
  // A vocabulary is many small blocks, which the C library would keep resident.
  malloc_trim(0);
}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxFileBytes));
  std::string message;
  const LfBytesOut error{&message, AssignBytes};
  LfTokenizer* handle = nullptr;
  const int result = lf_tokenizer_load(Bytes(json), json.size(), &handle, &error);
  LF_RETURN_IF_ERROR(Annotate(ToStatus(result, message), path.string()));
  return Tokenizer(handle);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool add_special_tokens) const {
  std::vector<int32_t> ids;
  std::string message;
  const LfIdsOut out{&ids, AssignIds};
  const LfBytesOut error{&message, AssignBytes};
  const int result = lf_tokenizer_encode(handle_.get(), Bytes(text), text.size(),
                                         add_special_tokens, &out, &error);
  LF_RETURN_IF_ERROR(ToStatus(result, message));
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(const std::vector<int32_t>& ids,
                                              bool skip_special_tokens) const {
  // A negative id becomes one beyond every vocabulary, so test it here, where its
  // value can still be named.
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " is ", ids[i], ", expected an id of at least 0"));
    }
  }
  const std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
  std::string text;
  std::string message;
  const LfBytesOut out{&text, AssignBytes};
  const LfBytesOut error{&message, AssignBytes};
  const int result = lf_tokenizer_decode(handle_.get(), unsigned_ids.data(), unsigned_ids.size(),
                                         skip_special_tokens, &out, &error);
  LF_RETURN_IF_ERROR(ToStatus(result, message));
  return text;
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(lf_tokenizer_id_limit(handle_.get()));
}

}  // namespace latentforge::model
