#include "client/disk_guard.h"

#include "client/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

TEST(DiskGuardTest, EndsTheWaitOnceTheDiskStaysFull) {
  FakeClock clock;
  std::optional<int64_t> free = int64_t{1} << 30;
  int looks = 0;
  DiskGuard guard("/work-folder", clock, [&](const std::filesystem::path&) {
    ++looks;
    return free;
  });
  const auto wait = [&](int tenths) {
    absl::Status status;
    for (int i = 0; i < tenths && status.ok(); ++i) {
      clock.Advance(absl::Milliseconds(100));
      status = guard.Check();
    }
    return status;
  };
  EXPECT_TRUE(wait(300).ok());
  EXPECT_LE(looks, 31) << "it looks once a second";
  free = 4096;
  EXPECT_TRUE(wait(90).ok()) << "others may free some";
  free = std::nullopt;
  EXPECT_TRUE(wait(300).ok()) << "a system that does not say is no full disk";
  free = 4096;
  EXPECT_TRUE(wait(90).ok()) << "the time counts anew";
  const absl::Status full = wait(30);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "SCRATCH_FULL");
  EXPECT_THAT(full.message(), HasSubstr("/work-folder has 4096 bytes free, expected at least"));
  EXPECT_THAT(NextStepOf(full), HasSubstr("--work-dir"));
}

TEST(DiskGuardTest, RealFoldersHaveAFigureAndAbsentOnesHaveNone) {
  EXPECT_TRUE(FreeBytes("/").has_value());
  EXPECT_FALSE(FreeBytes("/no/such/folder").has_value());
}

}  // namespace
}  // namespace latentforge::client
