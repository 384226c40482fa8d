#include "service/auth/https_fetch.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/temp_dir.h"
#include "tests/service/test_certificates.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

// Gives one answer to one connection.
class HttpsServer {
 public:
  HttpsServer(const TestCertificate& certificate, std::string answer)
      : answer_(std::move(answer)),
        context_(SSL_CTX_new(TLS_server_method())),
        socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(name);
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    EXPECT_EQ(listen(socket_.get(), 1), 0);
    EXPECT_EQ(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
    port_ = ntohs(name.sin_port);
    Use(certificate);
    thread_ = std::thread([this] { Serve(); });
  }
  ~HttpsServer() {
    shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
    SSL_CTX_free(context_);
  }

  std::string url() const { return absl::StrCat("https://localhost:", port_, "/keys"); }

 private:
  void Use(const TestCertificate& pem) {
    BIO* const certificate = BIO_new_mem_buf(pem.certificate.data(), -1);
    BIO* const key = BIO_new_mem_buf(pem.key.data(), -1);
    X509* const x509 = PEM_read_bio_X509(certificate, nullptr, nullptr, nullptr);
    EVP_PKEY* const private_key = PEM_read_bio_PrivateKey(key, nullptr, nullptr, nullptr);
    EXPECT_EQ(SSL_CTX_use_certificate(context_, x509), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey(context_, private_key), 1);
    X509_free(x509);
    EVP_PKEY_free(private_key);
    BIO_free(certificate);
    BIO_free(key);
  }

  void Serve() {
    const UniqueFd connection(accept(socket_.get(), nullptr, nullptr));
    if (!connection.valid()) return;
    SSL* const ssl = SSL_new(context_);
    SSL_set_fd(ssl, connection.get());
    char request[4096];
    if (SSL_accept(ssl) == 1 && SSL_read(ssl, request, sizeof(request)) > 0) {
      SSL_write(ssl, answer_.data(), static_cast<int>(answer_.size()));
      SSL_shutdown(ssl);
    }
    SSL_free(ssl);
  }

  const std::string answer_;
  SSL_CTX* const context_;
  const UniqueFd socket_;
  int port_ = 0;
  std::thread thread_;
};

std::string Answer(const std::string& status, const std::string& body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nConnection: close\r\n\r\n", body);
}

class HttpsFetchTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { signal(SIGPIPE, SIG_IGN); }

  HttpsFetchTest() {
    options_.ca_file = dir_.path() / "ca.pem";
    EXPECT_TRUE(WriteFileAtomic(options_.ca_file, authority_.certificate()).ok());
  }

  absl::StatusOr<std::string> Get(const std::string& answer) {
    const HttpsServer server(certificate_, answer);
    return FetchHttps(server.url(), options_);
  }

  TempDir dir_;
  TestAuthority authority_{"test"};
  TestCertificate certificate_ = authority_.Issue({});
  FetchOptions options_;
};

TEST_F(HttpsFetchTest, ReturnsTheBody) {
  const auto body = Get(Answer("200 OK", "{\"keys\": []}"));
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_EQ(*body, "{\"keys\": []}");
}

TEST_F(HttpsFetchTest, TakesNoOtherAnswer) {
  EXPECT_THAT(std::string(Get(Answer("404 Not Found", "")).status().message()), HasSubstr("404"));
  EXPECT_THAT(
      std::string(Get(Answer("302 Found\r\nLocation: https://localhost/", "")).status().message()),
      HasSubstr("answered 302, expected 200"));
}

TEST_F(HttpsFetchTest, TakesNoMoreThanItsLimit) {
  options_.max_bytes = 1000;
  EXPECT_TRUE(Get(Answer("200 OK", std::string(1000, 'x'))).ok());
  EXPECT_EQ(Get(Answer("200 OK", std::string(1001, 'x'))).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST_F(HttpsFetchTest, TrustsOnlyWhomItIsTold) {
  const std::string answer = Answer("200 OK", "{}");
  certificate_ = TestAuthority("other").Issue({});
  EXPECT_EQ(Get(answer).status().code(), absl::StatusCode::kUnavailable);
  certificate_ = authority_.Issue({.names = "DNS:elsewhere"});
  EXPECT_EQ(Get(answer).status().code(), absl::StatusCode::kUnavailable);
  certificate_ = authority_.Issue({.valid_until = -absl::Minutes(1)});
  EXPECT_EQ(Get(answer).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(HttpsFetchTest, SpeaksNothingButHttps) {
  for (const char* url : {"http://localhost/", "file:///etc/passwd", "", "https://"})
    EXPECT_EQ(FetchHttps(url, options_).status().code(), absl::StatusCode::kUnavailable) << url;
}

}  // namespace
}  // namespace latentforge::service
