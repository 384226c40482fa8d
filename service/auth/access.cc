#include "service/auth/access.h"

#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

constexpr char kJobs[] = "latentforge.v1.JobService";
constexpr char kWorkers[] = "latentforge.v1.WorkerService";

// Admins may call every method that has a row. A heartbeat and a report extend a lease
// whose grant and end are audited; a line for each of them would drown those.
constexpr MethodAccess kTable[] = {
    {.service = kJobs, .method = "CreateJob", .user = true, .audited = true},
    {.service = kJobs, .method = "GetJob", .user = true},
    {.service = kJobs, .method = "ListJobs", .user = true},
    {.service = kJobs, .method = "CancelJob", .user = true, .audited = true},
    {.service = kJobs, .method = "PauseJob", .user = true, .audited = true},
    {.service = kJobs, .method = "ResumeJob", .user = true, .audited = true},
    {.service = kJobs, .method = "RetryJob", .user = true, .audited = true},
    {.service = kJobs, .method = "DeleteJob", .user = true, .audited = true},
    {.service = kJobs, .method = "GetAttempt", .user = true},
    {.service = kJobs, .method = "ListAttempts", .user = true},
    {.service = kJobs, .method = "WatchJob", .user = true},
    {.service = kJobs, .method = "ReadLogs", .user = true},
    {.service = kWorkers, .method = "AcquireLease", .worker = true, .audited = true},
    {.service = kWorkers, .method = "Heartbeat", .worker = true},
    {.service = kWorkers, .method = "ReportEvents", .worker = true},
    {.service = kWorkers, .method = "AppendLogs", .worker = true},
    {.service = kWorkers, .method = "CompleteAttempt", .worker = true, .audited = true},
    {.service = kWorkers, .method = "ListWorkers", .user = true, .worker = true},
    // Probes have no credentials, and learn only whether the server serves.
    {.service = "grpc.health.v1.Health", .method = "*", .anyone = true},
    {.service = "grpc.reflection.v1alpha.ServerReflection",
     .method = "*",
     .user = true,
     .worker = true},
};

bool Allows(const MethodAccess& access, Role role) {
  switch (role) {
    case Role::kUser:
      return access.anyone || access.user;
    case Role::kWorker:
      return access.anyone || access.worker;
    case Role::kAdmin:
      break;
  }
  return true;
}

// "user or admin": who may call it.
std::string RolesFor(const MethodAccess& access) {
  std::string roles;
  for (const Role role : {Role::kUser, Role::kWorker}) {
    if (Allows(access, role)) absl::StrAppend(&roles, RoleName(role), " or ");
  }
  return absl::StrCat(roles, RoleName(Role::kAdmin));
}

}  // namespace

const MethodAccess* FindAccess(absl::string_view service, absl::string_view method) {
  for (const MethodAccess& access : kTable)
    if (access.service == service && (access.method == "*" || access.method == method))
      return &access;
  return nullptr;
}

absl::Status Authorize(const Identity& caller, absl::string_view service,
                       absl::string_view method) {
  const MethodAccess* const access = FindAccess(service, method);
  if (access != nullptr && Allows(*access, caller.role)) return absl::OkStatus();
  const std::string name = absl::StrCat(service, "/", method);
  return MakeError(
      absl::StatusCode::kPermissionDenied, "ROLE_NOT_ALLOWED",
      absl::StrCat(
          caller.subject, " has the role ", RoleName(caller.role), ", which may not call ", name,
          access == nullptr ? ", as nobody may" : absl::StrCat(", expected ", RolesFor(*access))),
      {{"role", std::string(RoleName(caller.role))}, {"method", name}});
}

}  // namespace latentforge::service
