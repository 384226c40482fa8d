#include "service/auth/token_table.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

constexpr size_t kDigestCharacters = 64;

// What is wrong with a credential; empty when it is fine. It may be a token that somebody
// wrote here by mistake: not quoted.
std::string CredentialProblem(absl::string_view credential) {
  if (absl::ConsumePrefix(&credential, "sha256:")) {
    const bool hex = std::all_of(credential.begin(), credential.end(), [](unsigned char c) {
      return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
    });
    if (hex && credential.size() == kDigestCharacters) return "";
    return absl::StrCat("has ", credential.size(), hex ? "" : " other",
                        " characters after sha256:, expected 64 of 0-9 a-f");
  }
  if (absl::ConsumePrefix(&credential, "uri:"))
    return absl::StrContains(credential, ":") ? "" : "has no URI after uri:";
  if (absl::ConsumePrefix(&credential, "cn:")) return credential.empty() ? "has no name" : "";
  return "begins with none of sha256:, uri: and cn:";
}

absl::StatusOr<Identity> ParseIdentity(const std::vector<absl::string_view>& fields) {
  Identity identity;
  identity.subject = std::string(fields[1]);
  identity.tenant = std::string(fields[2]);
  if (const std::string problem = SubjectProblem(identity.subject); !problem.empty())
    return absl::InvalidArgumentError(absl::StrCat("field 2, the subject, ", problem));
  if (const std::string problem = TenantProblem(identity.tenant); !problem.empty())
    return absl::InvalidArgumentError(absl::StrCat("field 3, the tenant, ", problem));
  const std::optional<Role> role = ParseRole(fields[3]);
  if (!role.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("field 4, the role, is \"",
                                                   absl::CHexEscape(fields[3].substr(0, 80)),
                                                   "\", expected user, worker or admin"));
  }
  identity.role = *role;
  return identity;
}

}  // namespace

absl::StatusOr<TokenTable> TokenTable::Parse(absl::string_view text) {
  TokenTable table;
  std::set<std::string> seen;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const auto wrong = [number = ++number](absl::string_view what) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", what));
    };
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (fields.empty() || absl::StartsWith(fields[0], "#")) continue;
    if (fields.size() != 4)
      return wrong(absl::StrCat("has ", fields.size(),
                                " fields, expected 4: CREDENTIAL SUBJECT TENANT ROLE"));
    if (const std::string problem = CredentialProblem(fields[0]); !problem.empty())
      return wrong(absl::StrCat("field 1, the credential, ", problem));
    absl::StatusOr<Identity> identity = ParseIdentity(fields);
    if (!identity.ok()) return wrong(identity.status().message());
    if (!seen.insert(std::string(fields[0])).second)
      return wrong("field 1, the credential, is that of an earlier line");
    table.rows_.push_back({std::string(fields[0]), *std::move(identity)});
  }
  return table;
}

std::string TokenTable::CredentialOf(absl::string_view token) {
  return absl::StrCat("sha256:", Sha256Hex(token));
}

const Identity* TokenTable::Find(absl::string_view credential) const {
  const Identity* found = nullptr;
  for (const Row& row : rows_) {
    if (row.credential.size() == credential.size() &&
        CRYPTO_memcmp(row.credential.data(), credential.data(), credential.size()) == 0)
      found = &row.identity;
  }
  return found;
}

std::set<std::string> TokenTable::Tenants() const {
  std::set<std::string> tenants;
  for (const Row& row : rows_) {
    if (row.identity.role != Role::kWorker) tenants.insert(row.identity.tenant);
  }
  return tenants;
}

}  // namespace latentforge::service
