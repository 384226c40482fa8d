#include "worker/agent/attempt_roots.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(AttemptRootsTest, WithoutRootsOfOneThoseOfTheOtherHold) {
  EXPECT_THAT(*AttemptRoots({}, {}), IsEmpty());
  EXPECT_THAT(*AttemptRoots({"/a"}, {}), ElementsAre("/a"));
  EXPECT_THAT(*AttemptRoots({}, {"/w"}), ElementsAre("/w"));
}

TEST(AttemptRootsTest, OfBothTheNarrowerCounts) {
  EXPECT_THAT(*AttemptRoots({"/m/a", "/x"}, {"/m"}), ElementsAre("/m/a"));
  EXPECT_THAT(*AttemptRoots({"/m"}, {"/m/a", "/m/b"}), ElementsAre("/m/a", "/m/b"));
}

TEST(AttemptRootsTest, NothingInCommonIsAnErrorThatNamesBoth) {
  const auto roots = AttemptRoots({"/m/a", "/m/c"}, {"/m/b"});
  EXPECT_EQ(roots.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(roots.status().message()), HasSubstr("beneath /m/a, /m/c, and"));
  EXPECT_THAT(std::string(roots.status().message()), HasSubstr("--allowed-root is /m/b:"));
}

TEST(AttemptRootsTest, ALinkInPlaceOfAnInnerRootOpensNothing) {
  const fs::path root = fs::canonical(testing::TempDir()) / absl::StrCat("roots_", getpid());
  fs::create_directories(root / "elsewhere");
  fs::create_directories(root / "a");
  fs::create_directory_symlink(root / "elsewhere", root / "a" / "inner");
  fs::create_directory_symlink(root / "a", root / "b");
  EXPECT_THAT(RootsOfLease({root / "a" / "inner", root / "a"}), ElementsAre(root / "a"));
  EXPECT_THAT(RootsOfLease({root / "b"}), ElementsAre(root / "a")) << "links of this machine hold";
  fs::remove_all(root);
}

}  // namespace
}  // namespace latentforge::agent
