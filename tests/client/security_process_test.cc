// `latentforge` and `latentforge-worker` against a server with TLS.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/client/job_process.h"
#include "tests/service/test_certificates.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class SecurityProcessTest : public JobTest {
 protected:
  void SetUp() override {
    JobTest::SetUp();
    server_.reset();
    fs::remove(folder_ / "ready");
    const TestCertificate certificate = authority_.Issue({});
    Write("ca.pem", authority_.certificate());
    Write("cert.pem", certificate.certificate);
    Write("key.pem", certificate.key);
    Write("tokens", NewToken("alice", "user") + NewToken("w1", "worker"));
    StartServer({"--listen", "127.0.0.1:0", "--tls-cert", folder_ / "cert.pem", "--tls-key",
                 folder_ / "key.pem", "--token-file", folder_ / "tokens"});
    const std::vector<std::string> lines =
        absl::StrSplit(ReadFile(folder_ / "ready").value_or(""), '\n');
    ASSERT_GE(lines.size(), 2u);
    address_ = lines[1];
  }

  void Write(const std::string& name, const std::string& text) const {
    ASSERT_TRUE(WriteFileAtomic(folder_ / name, text).ok());
  }

  // Makes SUBJECT.token, and returns the line for the server.
  std::string NewToken(const std::string& subject, const std::string& role) {
    const Ending made =
        Finish(*Start({"auth", "new-token", "--subject", subject, "--tenant", "search", "--role",
                       role, "--out", folder_ / (subject + ".token")}));
    EXPECT_EQ(made.how, "exit code 0") << made.messages;
    return made.output;
  }

  std::vector<std::string> Secured(std::vector<std::string> arguments,
                                   const std::string& subject) const {
    arguments.insert(arguments.end(), {"--tls-ca", folder_ / "ca.pem", "--token-file",
                                       folder_ / (subject + ".token")});
    return arguments;
  }

  TestAuthority authority_{"test"};
};

TEST_F(SecurityProcessTest, ATokenIsWrittenOnceForItsUserAlone) {
  const fs::path file = folder_ / "bob.token";
  const std::string line = NewToken("bob", "admin");
  EXPECT_EQ(fs::status(file).permissions() & fs::perms::mask,
            fs::perms::owner_read | fs::perms::owner_write);
  const std::string token(absl::StripAsciiWhitespace(ReadFile(file).value_or("")));
  EXPECT_THAT(token, StartsWith("lft_"));
  EXPECT_EQ(token.size(), 47u);
  EXPECT_THAT(line, StartsWith("sha256:"));
  EXPECT_THAT(line, HasSubstr(" bob search admin\n"));
  EXPECT_THAT(line, Not(HasSubstr(token)));
  const std::vector<std::string> again = {"auth",     "new-token", "--subject", "bob",
                                          "--tenant", "search",    "--out",     file};
  EXPECT_EQ(Finish(*Start(again)).how, "exit code 7");
  EXPECT_THAT(ReadFile(file).value_or(""), StartsWith(token));
}

TEST_F(SecurityProcessTest, TheCommandLineShowsItsToken) {
  const Ending listed = Run(Secured({"job", "list", "-o", "json"}, "alice"));
  EXPECT_EQ(listed.how, "exit code 0") << listed.messages;
  EXPECT_EQ(Run({"health", "--tls-ca", folder_ / "ca.pem"}).how, "exit code 0");
  const Ending submitted =
      Run(Secured({"job", "submit", folder_ / "model", "--kv-budget", "0.5", "--calibration",
                   folder_ / "text.txt", "--out", folder_ / "out"},
                  "alice"));
  ASSERT_EQ(submitted.how, "exit code 0") << submitted.messages;
  const std::string job(absl::StripAsciiWhitespace(submitted.output));
  EXPECT_THAT(Run(Secured({"job", "get", job, "-o", "json"}, "alice")).output,
              HasSubstr("\"tenant\": \"search\""));
  EXPECT_EQ(Run(Secured({"job", "list", "--tenant", "search", "-o", "name"}, "alice")).output,
            submitted.output);
}

TEST_F(SecurityProcessTest, TheEnvironmentDoesAsWell) {
  setenv("LATENTFORGE_TLS_CA", (folder_ / "ca.pem").c_str(), 1);
  setenv("LATENTFORGE_TOKEN_FILE", (folder_ / "alice.token").c_str(), 1);
  const Ending listed = Run({"job", "list"});
  unsetenv("LATENTFORGE_TLS_CA");
  unsetenv("LATENTFORGE_TOKEN_FILE");
  EXPECT_EQ(listed.how, "exit code 0") << listed.messages;
}

TEST_F(SecurityProcessTest, RefusalsSayWhatToDo) {
  const Ending none = Run({"job", "list", "--tls-ca", folder_ / "ca.pem"});
  EXPECT_EQ(none.how, "exit code 4");
  EXPECT_THAT(none.messages, HasSubstr("[CREDENTIALS_MISSING]"));
  EXPECT_THAT(none.messages, HasSubstr("next: name the file that holds your token: --token-file"));
  const Ending role = Run(Secured({"job", "list"}, "w1"));
  EXPECT_EQ(role.how, "exit code 4");
  EXPECT_THAT(role.messages, HasSubstr("expected user or admin [ROLE_NOT_ALLOWED]"));
  Write("alice.token", "lft_wrong\n");
  const Ending wrong = Run(Secured({"job", "list"}, "alice"));
  EXPECT_EQ(wrong.how, "exit code 4");
  EXPECT_THAT(wrong.messages, HasSubstr("[TOKEN_INVALID]"));
  EXPECT_THAT(wrong.messages, Not(HasSubstr("lft_wrong")));
  Write("alice.token", "two words\n");
  const Ending words = Run(Secured({"job", "list"}, "alice"));
  EXPECT_EQ(words.how, "exit code 2");
  EXPECT_THAT(words.messages, HasSubstr("alice.token holds more than one word"));
}

TEST_F(SecurityProcessTest, AServerThatIsNotTrustedIsToldApart) {
  Write("other.pem", TestAuthority("other").certificate());
  const Ending other = Run({"health", "--tls-ca", folder_ / "other.pem"});
  EXPECT_EQ(other.how, "exit code 9");
  EXPECT_THAT(other.messages, HasSubstr("[SERVER_NOT_TRUSTED]"));
  EXPECT_THAT(other.messages, HasSubstr("--tls-ca"));
  const std::vector<std::string> misnamed = {"job", "list", "--tls-server-name", "elsewhere"};
  const Ending name = Run(Secured(misnamed, "alice"));
  EXPECT_EQ(name.how, "exit code 9");
  EXPECT_THAT(name.messages, HasSubstr("[SERVER_NOT_TRUSTED]"));
  const Ending clear = Run({"health"});
  EXPECT_EQ(clear.how, "exit code 9");
  EXPECT_THAT(clear.messages, HasSubstr("closed the connection"));
  EXPECT_THAT(clear.messages, HasSubstr("[SERVER_UNREACHABLE]\nnext: if the server has TLS"));
}

TEST_F(SecurityProcessTest, AWorkerShowsItsTokenAndLeavesWithoutOne) {
  const auto start = [this](const std::vector<std::string>& more) {
    std::vector<std::string> command = {
        Program("latentforge-worker"), "--server",  address_,          "--scratch",
        folder_ / "scratch",           "--convert", "/bin/true",       "--ready-file",
        folder_ / "worker-ready",      "--tls-ca",  folder_ / "ca.pem"};
    command.insert(command.end(), more.begin(), more.end());
    auto worker = ChildProcess::Start({.argv = command, .log = folder_ / "worker.log"});
    EXPECT_TRUE(worker.ok()) << worker.status();
    return *std::move(worker);
  };
  const auto stranger = start({});
  EXPECT_TRUE(stranger->Wait(absl::Seconds(30)));
  EXPECT_EQ(stranger->exit_status().ToString(), "exit code 1");
  EXPECT_THAT(ReadFile(folder_ / "worker.log").value_or(""), HasSubstr("CREDENTIALS_MISSING"));
  const auto worker = start({"--token-file", folder_ / "w1.token"});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!fs::exists(folder_ / "worker-ready") && std::chrono::steady_clock::now() < deadline)
    usleep(10'000);
  EXPECT_TRUE(fs::exists(folder_ / "worker-ready"))
      << ReadFile(folder_ / "worker.log").value_or("");
}

}  // namespace
}  // namespace latentforge::client
