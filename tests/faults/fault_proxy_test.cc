#include "tests/faults/fault_proxy.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/service/temp_dir.h"

namespace latentforge::faults {
namespace {

sockaddr_un UnixName(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof(name.sun_path) - 1);
  return name;
}

// A caller and a target with a proxy between them.
class FaultProxyTest : public testing::Test {
 protected:
  void SetUp() override {
    const sockaddr_un name = UnixName(Path("target"));
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
    ASSERT_EQ(listen(listener_.get(), 8), 0);
    Connect();
  }

  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }

  void Connect() {
    caller_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM, 0));
    const sockaddr_un name = UnixName(Path("proxy"));
    ASSERT_EQ(connect(caller_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
  }
  void Accept() { target_ = UniqueFd(accept(listener_.get(), nullptr, nullptr)); }

  static void Say(const UniqueFd& from, const std::string& text) {
    EXPECT_EQ(send(from.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // What comes within `patience`; "END" when the connection ended, "" for nothing.
  static std::string Hear(const UniqueFd& at, absl::Duration patience = absl::Seconds(10)) {
    pollfd polled = {at.get(), POLLIN, 0};
    if (poll(&polled, 1, static_cast<int>(absl::ToInt64Milliseconds(patience))) <= 0) return "";
    char buffer[64];
    const ssize_t size = read(at.get(), buffer, sizeof(buffer));
    return size > 0 ? std::string(buffer, static_cast<size_t>(size)) : "END";
  }

  static constexpr absl::Duration kMoment = absl::Milliseconds(100);
  TempDir folder_;
  UniqueFd listener_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM, 0));
  FaultProxy proxy_ = {absl::StrCat("unix:", Path("proxy")), absl::StrCat("unix:", Path("target"))};
  UniqueFd caller_;
  UniqueFd target_;
};

TEST_F(FaultProxyTest, PassesBothWaysAndTellsTheEnd) {
  Accept();
  Say(caller_, "ask");
  EXPECT_EQ(Hear(target_), "ask");
  Say(target_, "answer");
  EXPECT_EQ(Hear(caller_), "answer");
  caller_.Reset();
  EXPECT_EQ(Hear(target_), "END");
  EXPECT_EQ(proxy_.accepted(), 1);
}

TEST_F(FaultProxyTest, BytesWaitWhileStalledAndAreDelayed) {
  Accept();
  proxy_.Set({.stalled = true});
  Say(caller_, "ask");
  EXPECT_EQ(Hear(target_, kMoment), "");
  proxy_.Set({.delay = 2 * kMoment});
  const absl::Time begin = absl::Now();
  EXPECT_EQ(Hear(target_), "ask");
  EXPECT_GE(absl::Now() - begin, kMoment);
}

TEST_F(FaultProxyTest, AConnectionThatLostBytesEndsWhenTheLossDoes) {
  Accept();
  proxy_.Set({.lose_answers = true});
  Say(caller_, "ask");
  EXPECT_EQ(Hear(target_), "ask");
  Say(target_, "answer");
  EXPECT_EQ(Hear(caller_, kMoment), "");
  proxy_.Set({});
  EXPECT_EQ(Hear(caller_), "END");
}

TEST_F(FaultProxyTest, CutsAndRefusesConnections) {
  Accept();
  proxy_.Cut();
  EXPECT_EQ(Hear(caller_), "END");
  EXPECT_EQ(Hear(target_), "END");
  proxy_.Set({.refused = true});
  Connect();
  EXPECT_EQ(Hear(caller_), "END");
  proxy_.Set({});
  Connect();
  Accept();
  Say(caller_, "ask");
  EXPECT_EQ(Hear(target_), "ask");
}

TEST_F(FaultProxyTest, AHalfClosedConnectionStillAnswers) {
  Accept();
  proxy_.HalfClose();
  EXPECT_EQ(Hear(target_), "END");
  Say(target_, "answer");
  EXPECT_EQ(Hear(caller_), "answer");
}

TEST_F(FaultProxyTest, NobodyBehindItLooksLikeAnEnd) {
  unlink(Path("target").c_str());
  Connect();
  EXPECT_EQ(Hear(caller_), "END");
}

}  // namespace
}  // namespace latentforge::faults
