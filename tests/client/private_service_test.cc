#include "client/private_service.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

class PrivateServiceTest : public testing::Test {
 protected:
  PrivateServiceTest() {
    std::filesystem::create_directories(folder_);
    options_.folder = folder_;
    options_.socket = folder_ / "server.sock";
    options_.server = "/bin/false";
  }
  ~PrivateServiceTest() override { std::filesystem::remove_all(folder_); }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / absl::StrCat("private_service_", getpid());
  PrivateServiceOptions options_;
};

TEST_F(PrivateServiceTest, AChildThatDiesOnAFullDiskIsAFullDisk) {
  options_.free_bytes = [](const std::filesystem::path&) { return int64_t{4096}; };
  const absl::Status full = PrivateService::Start(options_, RealClock()).status();
  EXPECT_EQ(ReasonOf(full), "SCRATCH_FULL");
  EXPECT_THAT(full.message(), HasSubstr(absl::StrCat(folder_.string(), " has 4096 bytes free")));
}

TEST_F(PrivateServiceTest, ElseItHasDied) {
  options_.free_bytes = [](const std::filesystem::path&) { return int64_t{1} << 30; };
  const absl::Status died = PrivateService::Start(options_, RealClock()).status();
  EXPECT_EQ(ReasonOf(died), "CHILD_DIED");
  EXPECT_THAT(died.message(), HasSubstr("latentforge-server ended with exit code 1"));
}

}  // namespace
}  // namespace latentforge::client
