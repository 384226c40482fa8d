#include "base/shared_deadline.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace latentforge {
namespace {

namespace fs = std::filesystem;

class SharedDeadlineTest : public testing::Test {
 protected:
  SharedDeadlineTest()
      : path_(fs::path(testing::TempDir()) / ("deadline-" + std::to_string(getpid()))) {
    fs::remove(path_);
  }
  ~SharedDeadlineTest() override { fs::remove(path_); }

  const fs::path path_;
};

TEST_F(SharedDeadlineTest, WhoLooksSeesWhatWasSetLast) {
  auto set = SharedDeadline::Create(path_);
  ASSERT_TRUE(set.ok()) << set.status();
  const auto seen = SharedDeadline::Open(path_);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_EQ(seen->Get(), absl::ZeroDuration());
  set->Set(absl::Seconds(5));
  EXPECT_EQ(seen->Get(), absl::Seconds(5));
  set->Set(absl::Hours(1000) + absl::Nanoseconds(1));
  EXPECT_EQ(seen->Get(), absl::Hours(1000) + absl::Nanoseconds(1));
}

TEST_F(SharedDeadlineTest, TheNextOneBeginsAnew) {
  {
    auto first = SharedDeadline::Create(path_);
    ASSERT_TRUE(first.ok()) << first.status();
    first->Set(absl::Seconds(5));
  }
  EXPECT_EQ(SharedDeadline::Open(path_)->Get(), absl::Seconds(5));
  auto second = SharedDeadline::Create(path_);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->Get(), absl::ZeroDuration());
}

TEST_F(SharedDeadlineTest, SaysWhatIsNoDeadline) {
  EXPECT_TRUE(absl::IsNotFound(SharedDeadline::Open(path_).status()));
  std::ofstream(path_) << "later";
  const absl::Status status = SharedDeadline::Open(path_).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("has 5 bytes, expected the 8"), std::string::npos) << status;
  EXPECT_FALSE(SharedDeadline::Create(path_ / "below").ok());
}

}  // namespace
}  // namespace latentforge
