#include "service/page_token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

constexpr size_t kSignatureBytes = 16;

}  // namespace

std::string PageTokenCodec::Sign(absl::string_view position, absl::string_view binding) const {
  // The length keeps position and binding apart.
  const std::string text = absl::StrCat(position.size(), ":", position, binding);
  unsigned char digest[EVP_MAX_MD_SIZE] = {};
  unsigned int size = 0;
  HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  return std::string(reinterpret_cast<const char*>(digest), kSignatureBytes);
}

std::string PageTokenCodec::Encode(absl::string_view position, absl::string_view binding) const {
  return absl::WebSafeBase64Escape(absl::StrCat(Sign(position, binding), position));
}

absl::StatusOr<std::string> PageTokenCodec::Decode(absl::string_view token,
                                                   absl::string_view binding) const {
  std::string bytes;
  if (absl::WebSafeBase64Unescape(token, &bytes) && bytes.size() >= kSignatureBytes) {
    const std::string position = bytes.substr(kSignatureBytes);
    const std::string expected = Sign(position, binding);
    if (CRYPTO_memcmp(bytes.data(), expected.data(), kSignatureBytes) == 0) return position;
  }
  return MakeFieldError(
      "BAD_PAGE_TOKEN",
      {{"page_token", absl::StrCat("is \"", token.substr(0, 80),
                                   "\", expected the next_page_token of an earlier page of the "
                                   "same list")}});
}

}  // namespace latentforge::service
