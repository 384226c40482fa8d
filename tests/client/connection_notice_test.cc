#include "client/connection_notice.h"

#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

TEST(ConnectionNoticeTest, EachThingIsSaidOnce) {
  ConnectionNotice notice;
  const absl::Status refused = absl::UnavailableError("refused");
  const absl::Status closed = absl::UnavailableError("closed");
  EXPECT_EQ(notice.Lost(refused), "no connection yet (refused), trying again");
  EXPECT_EQ(notice.Lost(refused), std::nullopt);
  EXPECT_EQ(notice.Made(), "connected");
  EXPECT_EQ(notice.Made(), std::nullopt);
  EXPECT_EQ(notice.Lost(closed), "connection lost (closed), trying again");
  EXPECT_EQ(notice.Lost(refused), "connection lost (refused), trying again");
  EXPECT_EQ(notice.Lost(closed), std::nullopt);
  EXPECT_EQ(notice.Made(), "connected again");
  // The same trouble once more is news.
  EXPECT_EQ(notice.Lost(refused), "connection lost (refused), trying again");
}

TEST(ConnectionNoticeTest, ALineThatStaysIsNoNews) {
  ConnectionNotice notice;
  EXPECT_EQ(notice.Made(), std::nullopt);
  EXPECT_EQ(notice.Made(), std::nullopt);
}

}  // namespace
}  // namespace latentforge::client
