#include "service/auth/access.h"

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "latentforge/v1/job_service.pb.h"
#include "latentforge/v1/worker_service.pb.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

// Every method of every service in proto/latentforge/v1, found without naming any.
std::vector<const MethodDescriptor*> EveryMethod() {
  // Keeps the linker from leaving the descriptors out.
  v1::CreateJobRequest::descriptor();
  v1::AcquireLeaseRequest::descriptor();
  std::vector<const MethodDescriptor*> methods;
  const std::filesystem::path folder = std::filesystem::path(LATENTFORGE_SOURCE_DIR) / "proto";
  for (const auto& entry : std::filesystem::directory_iterator(folder / "latentforge/v1")) {
    const std::string name = absl::StrCat("latentforge/v1/", entry.path().filename().string());
    const FileDescriptor* file = DescriptorPool::generated_pool()->FindFileByName(name);
    EXPECT_NE(file, nullptr) << name << " is not compiled into this test";
    for (int s = 0; file != nullptr && s < file->service_count(); ++s) {
      const ServiceDescriptor& service = *file->service(s);
      for (int m = 0; m < service.method_count(); ++m) methods.push_back(service.method(m));
    }
  }
  return methods;
}

Identity As(Role role) { return {.subject = "somebody", .tenant = "search", .role = role}; }

bool May(Role role, const MethodDescriptor& method) {
  return Authorize(As(role), method.service()->full_name(), method.name()).ok();
}

TEST(AccessTest, EveryMethodHasARow) {
  const auto methods = EveryMethod();
  EXPECT_GE(methods.size(), 11u);
  for (const MethodDescriptor* method : methods) {
    const MethodAccess* access = FindAccess(method->service()->full_name(), method->name());
    ASSERT_NE(access, nullptr) << method->full_name() << " needs a row in service/auth/access.cc";
    EXPECT_FALSE(access->anyone) << method->full_name();
    EXPECT_TRUE(May(Role::kAdmin, *method)) << method->full_name();
  }
}

TEST(AccessTest, UsersHaveJobsAndWorkersHaveLeases) {
  for (const MethodDescriptor* method : EveryMethod()) {
    const bool of_jobs = method->service()->name() == "JobService";
    EXPECT_EQ(May(Role::kWorker, *method), !of_jobs) << method->full_name();
    EXPECT_EQ(May(Role::kUser, *method), of_jobs || method->name() == "ListWorkers")
        << method->full_name();
  }
}

TEST(AccessTest, WhatChangesJobsIsAudited) {
  std::vector<std::string> audited;
  for (const MethodDescriptor* method : EveryMethod())
    if (FindAccess(method->service()->full_name(), method->name())->audited)
      audited.push_back(method->name());
  EXPECT_THAT(audited, testing::UnorderedElementsAre("CreateJob", "CancelJob", "PauseJob",
                                                     "ResumeJob", "RetryJob", "DeleteJob",
                                                     "AcquireLease", "CompleteAttempt"));
}

TEST(AccessTest, HealthIsForAnyoneAndReflectionIsNot) {
  EXPECT_TRUE(FindAccess("grpc.health.v1.Health", "Check")->anyone);
  EXPECT_TRUE(FindAccess("grpc.health.v1.Health", "Watch")->anyone);
  const auto* reflection =
      FindAccess("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo");
  ASSERT_NE(reflection, nullptr);
  EXPECT_FALSE(reflection->anyone);
}

TEST(AccessTest, UnknownMethodsAreForNobody) {
  for (const Role role : {Role::kUser, Role::kWorker, Role::kAdmin}) {
    const absl::Status status = Authorize(As(role), "latentforge.v1.JobService", "PurgeJobs");
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(ReasonOf(status), "ROLE_NOT_ALLOWED");
  }
}

TEST(AccessTest, ARefusalNamesTheRoleAndTheMethod) {
  const absl::Status status =
      Authorize(As(Role::kWorker), "latentforge.v1.JobService", "CancelJob");
  EXPECT_EQ(status.message(),
            "somebody has the role worker, which may not call latentforge.v1.JobService/CancelJob, "
            "expected user or admin");
}

}  // namespace
}  // namespace latentforge::service
