#include "service/auth/identity.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxTenantBytes = 63;
constexpr size_t kMaxSubjectBytes = 128;

template <typename Allowed>
std::string Problem(absl::string_view name, size_t max_bytes, absl::string_view characters,
                    Allowed allowed) {
  if (name.empty() || name.size() > max_bytes)
    return absl::StrCat("has ", name.size(), " bytes, expected 1 to ", max_bytes);
  if (std::all_of(name.begin(), name.end(), allowed)) return "";
  return absl::StrCat("is \"", absl::CHexEscape(name), "\", expected ", characters);
}

}  // namespace

absl::string_view RoleName(Role role) {
  switch (role) {
    case Role::kUser:
      return "user";
    case Role::kWorker:
      return "worker";
    case Role::kAdmin:
      break;
  }
  return "admin";
}

std::optional<Role> ParseRole(absl::string_view name) {
  for (const Role role : {Role::kUser, Role::kWorker, Role::kAdmin})
    if (name == RoleName(role)) return role;
  return std::nullopt;
}

std::string TenantProblem(absl::string_view tenant) {
  return Problem(
      tenant, kMaxTenantBytes, "letters, digits, \".\", \"_\" and \"-\"",
      [](unsigned char c) { return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-'; });
}

std::string SubjectProblem(absl::string_view subject) {
  return Problem(subject, kMaxSubjectBytes, "printable ASCII without blanks",
                 [](unsigned char c) { return absl::ascii_isgraph(c); });
}

}  // namespace latentforge::service
