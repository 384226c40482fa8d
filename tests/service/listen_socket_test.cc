#include "service/listen_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <filesystem>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

absl::StatusOr<ListenSocket> TryOpen(const std::string& text) {
  return ListenSocket::Open(ParseListenAddress(text).value());
}

TEST(ListenSocketTest, ANameGetsOnePortOnAllItsAddresses) {
  const auto socket = TryOpen("localhost:0");
  ASSERT_TRUE(socket.ok()) << socket.status();
  std::set<int> ports;
  for (const UniqueFd& fd : socket->descriptors()) {
    sockaddr_storage name = {};
    socklen_t length = sizeof(name);
    ASSERT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
    // The port has the same place in both families.
    ports.insert(ntohs(reinterpret_cast<const sockaddr_in*>(&name)->sin_port));
  }
  ASSERT_EQ(ports.size(), 1u);
  EXPECT_EQ(socket->text(), "localhost:" + std::to_string(*ports.begin()));
}

TEST(ListenSocketTest, ATakenAddressIsAnError) {
  const auto first = TryOpen("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status taken = TryOpen(first->text()).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(taken.message(), HasSubstr(first->text()));
}

TEST(ListenSocketTest, AnAddressOfAnotherMachineIsAnError) {
  // 192.0.2.0/24 is for documentation (RFC 5737).
  const absl::Status status = TryOpen("192.0.2.1:0").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("cannot listen on 192.0.2.1:0: Cannot assign"));
}

TEST(ListenSocketTest, AUnixSocketsFileComesAndGoes) {
  const TempDir folder;
  const std::string path = (folder.path() / "s.sock").string();
  {
    auto socket = TryOpen("unix:" + path);
    ASSERT_TRUE(socket.ok()) << socket.status();
    EXPECT_EQ(socket->text(), "unix:" + path);
    EXPECT_EQ(TryOpen("unix:" + path).status().code(), absl::StatusCode::kAlreadyExists);
    const ListenSocket moved = *std::move(socket);
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ListenSocketTest, TheFileOfAKilledServerIsReplaced) {
  const TempDir folder;
  const std::string text = "unix:" + (folder.path() / "s.sock").string();
  {
    auto socket = TryOpen(text);
    ASSERT_TRUE(socket.ok());
    // What kill -9 leaves: a file that nobody listens on.
    std::filesystem::create_hard_link(folder.path() / "s.sock", folder.path() / "kept.sock");
  }
  std::filesystem::rename(folder.path() / "kept.sock", folder.path() / "s.sock");
  EXPECT_TRUE(TryOpen(text).ok());
}

}  // namespace
}  // namespace latentforge::service
