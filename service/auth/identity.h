// Who calls: a subject of a tenant, in a role.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace latentforge::service {

// What a caller may do; auth/access.h says which methods that is.
enum class Role {
  kUser,    // the jobs of its own tenant
  kWorker,  // runs the jobs of every tenant
  kAdmin,   // everything, in every tenant
};

// The tenant of jobs from before there were tenants, and of this machine's own users.
inline constexpr char kDefaultTenant[] = "default";

// A plain value.
struct Identity {
  std::string subject;
  std::string tenant;
  Role role = Role::kUser;

  // Whether jobs of `job_tenant` exist for this caller.
  bool Sees(absl::string_view job_tenant) const {
    return role == Role::kAdmin || job_tenant == tenant;
  }

  friend bool operator==(const Identity&, const Identity&) = default;
};

// "user", "worker", "admin".
absl::string_view RoleName(Role role);
std::optional<Role> ParseRole(absl::string_view name);

// What is wrong with a name from outside, to go on after it ("has 70 bytes, expected
// 1 to 63"); empty when it is fine. Tenants: a-z A-Z 0-9 . _ -; subjects: up to 128
// bytes of printable ASCII without blanks.
std::string TenantProblem(absl::string_view tenant);
std::string SubjectProblem(absl::string_view subject);

}  // namespace latentforge::service
