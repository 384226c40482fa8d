// Public keys that sign tokens: a JSON Web Key Set (RFC 7517).
#pragma once

#include <cjose/jwk.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

// Holds the keys for RS256 (RSA of 2048 bits at least) and ES256 (P-256). Immutable, so
// safe for concurrent use.
class KeySet {
 public:
  // Leaves out keys of other kinds and uses, as providers publish several. InvalidArgument
  // when the text is no key set, or has no key that is left.
  static absl::StatusOr<KeySet> Parse(absl::string_view json);

  // The key of that name for that algorithm, or the only one for it when the token names
  // none. nullptr when there is no such key.
  const cjose_jwk_t* Find(absl::string_view key_id, absl::string_view algorithm) const;

  size_t size() const { return keys_.size(); }

 private:
  struct Release {
    void operator()(cjose_jwk_t* key) const { cjose_jwk_release(key); }
  };
  struct Key {
    std::string id;
    absl::string_view algorithm;
    std::unique_ptr<cjose_jwk_t, Release> jwk;
  };

  std::vector<Key> keys_;
};

}  // namespace latentforge::service
