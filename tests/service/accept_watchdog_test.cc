#include "service/accept_watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "service/connection_acceptor.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kProbeTimeout = absl::Milliseconds(200);

ListenSocket Open(const std::string& text) {
  return ListenSocket::Open(ParseListenAddress(text).value()).value();
}

// Answers by hanging up, as a server with TLS does to what is no TLS.
void HangUp(UniqueFd) {}

TEST(ProbeListenerTest, AnyAnswerWillDo) {
  const TempDir folder;
  for (const std::string& text :
       {std::string("127.0.0.1:0"), "unix:" + (folder.path() / "s.sock").string()}) {
    const ConnectionAcceptor acceptor(Open(text), {.descriptor_limit = 1000}, HangUp);
    EXPECT_TRUE(ProbeListener(acceptor.text(), Wire::kPlain, absl::Seconds(10)).ok()) << text;
  }
}

TEST(ProbeListenerTest, NobodyAccepts) {
  const TempDir folder;
  const ListenSocket tcp = Open("127.0.0.1:0");
  const absl::Status silent = ProbeListener(tcp.text(), Wire::kPlain, kProbeTimeout);
  EXPECT_EQ(silent.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(silent.message(), HasSubstr(tcp.text() + " got no answer in 200ms"));
  const ListenSocket unix_socket = Open("unix:" + (folder.path() / "s.sock").string());
  EXPECT_EQ(ProbeListener(unix_socket.text(), Wire::kPlain, kProbeTimeout).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(ProbeListenerTest, NobodyAnswersTls) {
  const ListenSocket silent = Open("127.0.0.1:0");
  EXPECT_EQ(ProbeListener(silent.text(), Wire::kTls, kProbeTimeout).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(ProbeListenerTest, NobodyListens) {
  std::string text;
  {
    const ListenSocket gone = Open("127.0.0.1:0");
    text = gone.text();
  }
  EXPECT_EQ(ProbeListener(text, Wire::kPlain, kProbeTimeout).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(AcceptWatchdogTest, GivesUpAfterFailuresInARow) {
  const ListenSocket silent = Open("127.0.0.1:0");
  absl::Notification gave_up;
  absl::Status reason;
  const absl::Time begin = absl::Now();
  const AcceptWatchdog watchdog(
      silent.text(),
      {.interval = absl::Milliseconds(20), .timeout = absl::Milliseconds(50), .failures = 3},
      [&](const absl::Status& status) {
        reason = status;
        gave_up.Notify();
      });
  ASSERT_TRUE(gave_up.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(3 * 65));  // poll rounds to milliseconds
  EXPECT_EQ(reason.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(AcceptWatchdogTest, IsContentWithAServerThatAnswers) {
  std::atomic<int> served = 0;
  const ConnectionAcceptor acceptor(Open("127.0.0.1:0"), {.descriptor_limit = 1000},
                                    [&](UniqueFd) { ++served; });
  bool gave_up = false;
  {
    const AcceptWatchdog watchdog(
        acceptor.text(),
        {.interval = absl::Milliseconds(5), .timeout = absl::Seconds(10), .failures = 1},
        [&](const absl::Status&) { gave_up = true; });
    const absl::Time end = absl::Now() + absl::Seconds(10);
    while (served < 3 && absl::Now() < end) absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_GE(served, 3);
  EXPECT_FALSE(gave_up);
}

TEST(AcceptWatchdogTest, EndsAtOnceWhenItIsNotNeeded) {
  const ListenSocket silent = Open("127.0.0.1:0");
  const absl::Time begin = absl::Now();
  { const AcceptWatchdog watchdog(silent.text(), {.interval = absl::Hours(1)}, nullptr); }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
}

}  // namespace
}  // namespace latentforge::service
