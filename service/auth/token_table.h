// Who has which token or certificate: the contents of --token-file.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/auth/identity.h"

namespace latentforge::service {

// Immutable, so safe for concurrent use.
class TokenTable {
 public:
  static constexpr char kFileName[] = "token file";

  // One line for each credential, with four fields between blanks:
  //   CREDENTIAL SUBJECT TENANT ROLE
  // CREDENTIAL is sha256:HEX (of a token), uri:URI (a subject alternative name of a client
  // certificate) or cn:NAME (its common name). Lines that begin with # and empty lines do
  // not count. InvalidArgument names line and field, and never quotes a token.
  static absl::StatusOr<TokenTable> Parse(absl::string_view text);

  // "sha256:HEX" of a token.
  static std::string CredentialOf(absl::string_view token);

  // nullptr when unknown. Takes as long for every credential of one length.
  const Identity* Find(absl::string_view credential) const;

  // Of those who may submit jobs, which workers may not.
  std::set<std::string> Tenants() const;

  size_t size() const { return rows_.size(); }

 private:
  struct Row {
    std::string credential;
    Identity identity;
  };

  std::vector<Row> rows_;
};

}  // namespace latentforge::service
