// Feeds arbitrary bytes to the verifier of web tokens, and to the parsers of key sets and of
// token files. Nobody can sign: no token may get in.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/clock.h"
#include "service/auth/token_table.h"
#include "service/auth/web_token.h"

namespace {

using namespace latentforge::service;  // NOLINT: nothing else is declared here

// A key of RFC 7515, appendix A.3, without a name: any header may ask for it.
constexpr char kKeySet[] =
    R"({"keys": [{"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]})";

class FixedKeys final : public SigningKeys {
 public:
  std::shared_ptr<const KeySet> Current() override { return keys_; }
  bool Refresh() override { return false; }

 private:
  const std::shared_ptr<const KeySet> keys_ =
      std::make_shared<const KeySet>(*KeySet::Parse(kKeySet));
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static FixedKeys keys;
  static const WebTokenVerifier verifier({.issuer = "i", .audience = "a"}, keys,
                                         latentforge::RealClock());
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<Caller> caller = verifier.Verify(text);
  if (caller.ok()) abort();
  if (!absl::IsUnauthenticated(caller.status()) && !absl::IsUnavailable(caller.status())) abort();
  const auto set = KeySet::Parse(text);
  if (set.ok() ? set->size() == 0 : !absl::IsInvalidArgument(set.status())) abort();
  const auto table = TokenTable::Parse(text);
  if (!table.ok() && !absl::IsInvalidArgument(table.status())) abort();
  return 0;
}
