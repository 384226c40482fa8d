// Feeds arbitrary page tokens to a codec: none gets in but those that it gave, for the list that it
// gave them for.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/escaping.h"
#include "fuzzer/FuzzedDataProvider.h"
#include "service/errors.h"
#include "service/page_token.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using latentforge::service::PageTokenCodec;
  static const PageTokenCodec codec("0123456789abcdef0123456789abcdef");
  FuzzedDataProvider input(data, size);
  const std::string position = input.ConsumeRandomLengthString(64);
  const std::string binding = input.ConsumeRandomLengthString(64);
  const std::string other_binding = input.ConsumeRandomLengthString(64);
  const std::string token = input.ConsumeRemainingBytesAsString();

  const std::string good = codec.Encode(position, binding);
  if (codec.Decode(good, binding).value_or("?" + position) != position) abort();
  if (binding != other_binding && codec.Decode(good, other_binding).ok()) abort();

  // `token` names its own position, were it one.
  const auto decoded = codec.Decode(token, binding);
  if (decoded.ok()) {
    std::string bytes, own;
    if (!absl::WebSafeBase64Unescape(token, &bytes) ||
        !absl::WebSafeBase64Unescape(codec.Encode(*decoded, binding), &own) || bytes != own)
      abort();
  } else if (latentforge::service::ReasonOf(decoded.status()) != "BAD_PAGE_TOKEN") {
    abort();
  }
  return 0;
}
