#include "base/path_roots.h"

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(PathRootsTest, ARootHoldsItselfAndAllBeneath) {
  EXPECT_TRUE(IsBeneath("/a/b", "/a/b"));
  EXPECT_TRUE(IsBeneath("/a/b/c", "/a/b"));
  EXPECT_TRUE(IsBeneath("/a", "/"));
  EXPECT_FALSE(IsBeneath("/a/bc", "/a/b"));
  EXPECT_FALSE(IsBeneath("/a", "/a/b"));
  EXPECT_TRUE(IsBeneathAny("/b/x", {"/a", "/b"}));
  EXPECT_FALSE(IsBeneathAny("/c", {"/a", "/b"}));
  EXPECT_FALSE(IsBeneathAny("/c", {}));
}

TEST(PathRootsTest, WhatTwoListsHaveInCommonIsTheNarrowerOfEachPair) {
  EXPECT_THAT(CommonRoots({"/a"}, {"/a/b", "/c"}), ElementsAre("/a/b"));
  EXPECT_THAT(CommonRoots({"/a/b", "/c"}, {"/a"}), ElementsAre("/a/b"));
  EXPECT_THAT(CommonRoots({"/a", "/c/d"}, {"/a/b", "/c"}), ElementsAre("/c/d", "/a/b"));
  EXPECT_THAT(CommonRoots({"/a", "/a"}, {"/a"}), ElementsAre("/a"));
  EXPECT_THAT(CommonRoots({"/a", "/b"}, {"/"}), ElementsAre("/a", "/b"));
  EXPECT_THAT(CommonRoots({"/a"}, {"/ab", "/b"}), IsEmpty());
}

class ResolveTest : public ::testing::Test {
 protected:
  ResolveTest() {
    fs::remove_all(folder_);
    fs::create_directories(root_ / "inner");
    fs::create_directories(folder_ / "secret");
    std::ofstream(folder_ / "secret" / "there") << "x";
  }
  ~ResolveTest() override { fs::remove_all(folder_); }

  const fs::path folder_ = fs::canonical(::testing::TempDir()) /
                           ::testing::UnitTest::GetInstance()->current_test_info()->name();
  const fs::path root_ = folder_ / "root";
};

TEST_F(ResolveTest, FollowsLinksAlsoToWhatIsNotThere) {
  fs::create_symlink(folder_ / "secret" / "absent", root_ / "dangling");
  fs::create_symlink("../secret", root_ / "relative");
  fs::create_symlink(root_ / "relative", root_ / "twice");
  EXPECT_EQ(*ResolvePath(root_ / "dangling"), folder_ / "secret" / "absent");
  EXPECT_EQ(*ResolvePath(root_ / "twice" / "x"), folder_ / "secret" / "x");
  EXPECT_EQ(*ResolvePath(root_ / "inner" / ".." / "new" / "."), root_ / "new");
  EXPECT_EQ(*ResolvePath("/../../a//b/"), "/a/b");
  // A link behind a folder that does not exist.
  EXPECT_EQ(*ResolvePath(root_ / "absent" / ".." / "relative" / "x"), folder_ / "secret" / "x");
}

TEST_F(ResolveTest, LinksInACircleAreAnError) {
  fs::create_symlink(root_ / "b", root_ / "a");
  fs::create_symlink(root_ / "a", root_ / "b");
  EXPECT_THAT(std::string(ResolvePath(root_ / "a").status().message()),
              HasSubstr("more than 40 symbolic links"));
  EXPECT_TRUE(absl::IsPermissionDenied(ResolveBeneath(root_ / "a", {root_}).status()));
}

TEST(PathRootsTest, TheOutermostHoldAll) {
  EXPECT_THAT(OutermostRoots({}), testing::IsEmpty());
  EXPECT_THAT(OutermostRoots({"/a/b", "/c", "/a", "/a/b/c", "/c", "/ab"}),
              testing::ElementsAre("/c", "/a", "/ab"));
}

TEST_F(ResolveTest, NothingOutsideTheRootsIsAllowed) {
  fs::create_directory_symlink(folder_ / "secret", root_ / "link");
  EXPECT_TRUE(ResolveBeneath(root_ / "inner", {root_}).ok());
  EXPECT_TRUE(ResolveBeneath(root_ / "new" / "x", {root_}).ok());
  EXPECT_EQ(*ResolveBeneath(folder_ / "secret", {}), folder_ / "secret");
  for (const fs::path& path :
       {root_ / "..", root_ / ".." / "secret", root_ / "link", root_ / "link" / "new",
        root_ / "absent" / ".." / "link" / "there", fs::path(root_.string() + "x")}) {
    EXPECT_TRUE(absl::IsPermissionDenied(ResolveBeneath(path, {root_}).status())) << path;
  }
}

TEST_F(ResolveTest, TheAnswerDoesNotTellWhatLiesOutside) {
  const fs::path named = root_ / "link";
  std::vector<std::string> answers;
  for (const char* name : {"there", "absent", "there/beneath/a/file"}) {
    fs::remove(named);
    fs::create_symlink(folder_ / "secret" / name, named);
    answers.push_back(ResolveBeneath(named, {root_}).status().ToString());
  }
  EXPECT_THAT(answers[0], HasSubstr("outside the allowed roots " + root_.string()));
  EXPECT_EQ(answers[1], answers[0]);
  EXPECT_EQ(answers[2], answers[0]);
}

}  // namespace
}  // namespace latentforge
