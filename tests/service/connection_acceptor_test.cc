#include "service/connection_acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/synchronization/mutex.h"
#include "service/accept_watchdog.h"

namespace latentforge::service {
namespace {

constexpr absl::Duration kSoon = absl::Milliseconds(300);
constexpr absl::Duration kPatience = absl::Seconds(10);

// Keeps what it is given.
class Connections {
 public:
  std::function<void(UniqueFd)> Keeper() {
    return [this](UniqueFd fd) {
      absl::MutexLock lock(&mutex_);
      kept_.push_back(std::move(fd));
    };
  }
  bool Reach(size_t count, absl::Duration patience) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return kept_.size() >= count;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), patience);
  }

 private:
  absl::Mutex mutex_;
  std::vector<UniqueFd> kept_ ABSL_GUARDED_BY(mutex_);
};

ListenSocket Loopback() {
  return ListenSocket::Open(ParseListenAddress("127.0.0.1:0").value()).value();
}

// A socket; Dial connects it. Two steps, so that there is one when descriptors run out.
UniqueFd Socket() { return UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

bool Dial(const UniqueFd& fd, const std::string& text) {
  int port = 0;
  if (!absl::SimpleAtoi(text.substr(text.rfind(':') + 1), &port)) return false;
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(port));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0;
}

bool IsClosed(const UniqueFd& fd) {
  pollfd waiting = {.fd = fd.get(), .events = POLLIN, .revents = 0};
  char byte = 0;
  return poll(&waiting, 1, 10'000) == 1 && recv(fd.get(), &byte, 1, 0) <= 0;
}

TEST(ConnectionAcceptorTest, HandsOnEachConnection) {
  Connections connections;
  const ConnectionAcceptor acceptor(Loopback(), {.descriptor_limit = 1000}, connections.Keeper());
  const UniqueFd a = Socket(), b = Socket();
  ASSERT_TRUE(Dial(a, acceptor.text()) && Dial(b, acceptor.text()));
  EXPECT_TRUE(connections.Reach(2, kPatience));
  EXPECT_EQ(acceptor.refused(), 0);
}

// Takes every descriptor that the process may have, until destroyed.
class Exhaustion {
 public:
  Exhaustion() {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit small = before_;
    small.rlim_cur = 256;
    setrlimit(RLIMIT_NOFILE, &small);
    while (true) {
      UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!fd.valid()) break;
      taken_.push_back(std::move(fd));
    }
  }
  ~Exhaustion() {
    taken_.clear();
    setrlimit(RLIMIT_NOFILE, &before_);
  }

 private:
  rlimit before_ = {};
  std::vector<UniqueFd> taken_;
};

TEST(ConnectionAcceptorTest, GoesOnAfterDescriptorsRanOut) {
  Connections connections;
  const ConnectionAcceptor acceptor(Loopback(), {.descriptor_limit = 1000}, connections.Keeper());
  const UniqueFd during = Socket(), after = Socket();
  {
    const Exhaustion exhaustion;
    ASSERT_TRUE(Dial(during, acceptor.text()));  // by the kernel
    EXPECT_FALSE(connections.Reach(1, kSoon));
    EXPECT_EQ(ProbeListener(acceptor.text(), Wire::kPlain, kSoon).code(),
              absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(connections.Reach(1, kPatience));
  ASSERT_TRUE(Dial(after, acceptor.text()));
  EXPECT_TRUE(connections.Reach(2, kPatience));
}

TEST(ConnectionAcceptorTest, ClosesWhatIsAboveTheLimitAndServesAgain) {
  Connections connections;
  // Clients first, and out of the way: their descriptors are of this process too.
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 10; ++i) {
    clients.emplace_back(fcntl(Socket().get(), F_DUPFD_CLOEXEC, 500));
  }
  const int next = Socket().get();
  // Room for the listener, the acceptor's eventfd and three connections.
  const ConnectionAcceptor acceptor(Loopback(), {.descriptor_limit = next + 5},
                                    connections.Keeper());
  for (const UniqueFd& client : clients) ASSERT_TRUE(Dial(client, acceptor.text()));
  EXPECT_TRUE(IsClosed(clients.back()));
  EXPECT_EQ(acceptor.refused(), 7);
  EXPECT_TRUE(connections.Reach(3, kPatience));
}

TEST(ConnectionAcceptorTest, LeavesRoomForOtherDescriptors) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  EXPECT_GT(SuitableDescriptorLimit(), 0);
  EXPECT_LT(static_cast<rlim_t>(SuitableDescriptorLimit()), limit.rlim_cur);
}

}  // namespace
}  // namespace latentforge::service
