// T23: who gets in through TLS, and what happens to connections when certificates change.
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/unique_fd.h"
#include "tests/service/security_fixture.h"
#include "tests/service/test_certificates.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using Channel = std::shared_ptr<grpc::ChannelCredentials>;

constexpr char kGetJob[] = "/latentforge.v1.JobService/GetJob";
constexpr char kHeartbeat[] = "/latentforge.v1.WorkerService/Heartbeat";

// How one handshake ends that offers no version above `newest`: the subject of the server's
// certificate, or "" when the server refuses.
std::string Handshake(int port, int newest) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name = {.sin_family = AF_INET,
                      .sin_port = htons(static_cast<uint16_t>(port)),
                      .sin_addr = {htonl(INADDR_LOOPBACK)}};
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_security_level(context, 0);  // else OpenSSL itself would not offer TLS 1.1
  SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
  SSL_CTX_set_max_proto_version(context, newest);
  const unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context, kHttp2, sizeof(kHttp2));
  SSL* const ssl = SSL_new(context);
  SSL_set_fd(ssl, fd.get());
  std::string subject;
  if (SSL_connect(ssl) == 1) {
    X509* const certificate = SSL_get1_peer_certificate(ssl);
    char text[256] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text,
                              sizeof(text));
    subject = text;
    X509_free(certificate);
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
  return subject;
}

class TlsSecurityTest : public SecurityTest {
 protected:
  TlsSecurityTest() {
    signal(SIGPIPE, SIG_IGN);  // of Handshake
    options_.tls = {dir_.path() / "cert.pem", dir_.path() / "key.pem"};
  }

  void Serve(const CertificateRequest& request = {}) {
    Install(authority_.Issue(request));
    StartOnLoopback(Trusting(authority_));
  }

  // For clients' certificates too.
  void ServeWithClients() {
    options_.tls.client_ca = dir_.path() / "clients.pem";
    Write(options_.tls.client_ca, clients_.certificate());
    WriteTokens(kTokens + "uri:spiffe://example.org/w1 w1 default worker\n");
    Serve();
  }

  void Install(const TestCertificate& issued) {
    Write(options_.tls.key, issued.key);
    Write(options_.tls.certificate, issued.certificate);
  }

  static void Write(const std::filesystem::path& path, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(path, text).ok());
  }

  static Channel Trusting(const TestAuthority& authority, const TestCertificate& own = {}) {
    return grpc::SslCredentials({authority.certificate(), own.key, own.certificate});
  }

  grpc::Status CallWith(const Channel& credentials, const std::string& method = kGetJob,
                        const std::string& token = "alice-token") {
    RpcClient client(server_->addresses().front(), credentials);
    return CallByName(*client.channel, method, token);
  }

  // With a certificate instead of a token.
  grpc::Status CallAs(const TestCertificate& own, const std::string& method = kHeartbeat) {
    return CallWith(Trusting(authority_, own), method, "");
  }

  int port() const {
    const std::string& address = server_->addresses().front();
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
    return port;
  }

  TestAuthority authority_{"servers"};
  TestAuthority clients_{"clients"};
};

TEST_F(TlsSecurityTest, TokensGetInThroughTls) {
  Serve();
  EXPECT_EQ(ReasonOf(CallWith(Trusting(authority_))), "BAD_NAME");
  EXPECT_EQ(ReasonOf(CallWith(Trusting(authority_), kGetJob, "")), "CREDENTIALS_MISSING");
  EXPECT_EQ(ReasonOf(CallWith(Trusting(authority_), kHeartbeat)), "ROLE_NOT_ALLOWED");
  EXPECT_EQ(AskHealth(*client_, ""), 1);
}

TEST_F(TlsSecurityTest, PlaintextGetsNoAnswer) {
  Serve();
  EXPECT_EQ(CallWith(grpc::InsecureChannelCredentials()).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsSecurityTest, ClientsRefuseAServerOfAnotherAuthority) {
  Serve();
  const grpc::Status status = CallWith(Trusting(TestAuthority("strangers")));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("certificate verify failed"));
}

TEST_F(TlsSecurityTest, ClientsRefuseAServerOfAnotherName) {
  Serve({.names = "DNS:elsewhere.example.org"});
  EXPECT_EQ(CallWith(Trusting(authority_)).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsSecurityTest, ClientsRefuseAServerWhoseCertificateHasExpired) {
  Serve({.common_name = "first"});
  Install(authority_.Issue({.common_name = "late", .valid_until = -absl::Minutes(1)}));
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (Handshake(port(), TLS1_3_VERSION) != "late" && absl::Now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const grpc::Status status = CallWith(Trusting(authority_));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("certificate verify failed"));
}

TEST_F(TlsSecurityTest, TlsIsNoOlderThan12) {
  Serve({.common_name = "first"});
  EXPECT_EQ(Handshake(port(), TLS1_VERSION), "");
  EXPECT_EQ(Handshake(port(), TLS1_1_VERSION), "");
  EXPECT_EQ(Handshake(port(), TLS1_2_VERSION), "first");
  EXPECT_EQ(Handshake(port(), TLS1_3_VERSION), "first");
}

TEST_F(TlsSecurityTest, AClientsCertificateSaysWhoItIs) {
  ServeWithClients();
  const TestCertificate worker =
      clients_.Issue({.common_name = "w", .names = "URI:spiffe://example.org/w1"});
  EXPECT_EQ(ReasonOf(CallAs(worker)), "BAD_NAME");
  EXPECT_EQ(ReasonOf(CallAs(worker, kGetJob)), "ROLE_NOT_ALLOWED");
  // A token decides before the certificate, and needs none.
  EXPECT_EQ(ReasonOf(CallWith(Trusting(authority_, worker))), "BAD_NAME");
  EXPECT_EQ(ReasonOf(CallWith(Trusting(authority_))), "BAD_NAME");
}

TEST_F(TlsSecurityTest, OtherClientCertificatesGetNowhere) {
  ServeWithClients();
  constexpr char kNames[] = "URI:spiffe://example.org/w1";
  EXPECT_EQ(ReasonOf(CallAs(clients_.Issue({.names = "URI:spiffe://example.org/w2"}))),
            "CERTIFICATE_NOT_KNOWN");
  const CertificateRequest expired = {.names = kNames, .valid_until = -absl::Minutes(1)};
  EXPECT_EQ(CallAs(clients_.Issue(expired)).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(CallAs(TestAuthority("strangers").Issue({.names = kNames})).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  // The servers' authority vouches for no clients.
  EXPECT_EQ(CallAs(authority_.Issue({.names = kNames})).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsSecurityTest, ReflectionAsksWhoCalls) {
  options_.enable_reflection = true;
  Serve();
  constexpr char kMethod[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  EXPECT_EQ(CallWith(Trusting(authority_), kMethod, "").error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CallWith(Trusting(authority_), kMethod, "wrong").error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(CallWith(Trusting(authority_), kMethod, "alice-token").ok());
}

TEST_F(TlsSecurityTest, ACertificateIsReplacedUnderLoad) {
  Serve({.common_name = "first"});
  std::atomic<bool> stop = false;
  std::atomic<int> calls = 0;
  std::atomic<int> failures = 0;
  // Two callers keep their connection, two make one for each call.
  const auto load = [&](bool reconnect) {
    auto client = std::make_unique<RpcClient>(server_->addresses().front(), Trusting(authority_));
    while (!stop) {
      if (reconnect)
        client = std::make_unique<RpcClient>(server_->addresses().front(), Trusting(authority_));
      const grpc::Status status = CallByName(*client->channel, kGetJob, "alice-token");
      ++calls;
      failures += ReasonOf(status) != "BAD_NAME";
    }
  };
  std::vector<std::thread> callers;
  for (const bool reconnect : {false, false, true, true}) callers.emplace_back(load, reconnect);
  EXPECT_EQ(Handshake(port(), TLS1_3_VERSION), "first");
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  Install(authority_.Issue({.common_name = "second"}));
  while (Handshake(port(), TLS1_3_VERSION) != "second" && absl::Now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(Handshake(port(), TLS1_3_VERSION), "second");
  const int before = calls;
  while (calls < before + 50 && absl::Now() < deadline) std::this_thread::yield();
  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failures, 0) << "of " << calls;
  EXPECT_GT(calls, 50);
}

TEST_F(TlsSecurityTest, FilesThatCannotWorkStopTheStart) {
  const auto refusal = [this] {
    options_.listen = {*ParseListenAddress("127.0.0.1:0")};
    return std::string(Server::Start(options_, RealClock()).status().message());
  };
  EXPECT_THAT(refusal(), HasSubstr("cert.pem"));
  Install(authority_.Issue({}));
  Write(options_.tls.key, authority_.Issue({}).key);
  EXPECT_THAT(refusal(), HasSubstr("key.pem is not the key of the certificate in"));
  Write(options_.tls.key, "nonsense");
  EXPECT_THAT(refusal(), HasSubstr("holds no private key in PEM"));
  Install(authority_.Issue({.valid_until = -absl::Minutes(1)}));
  EXPECT_THAT(refusal(), HasSubstr("has expired"));
  Write(options_.tls.certificate, "");
  EXPECT_THAT(refusal(), HasSubstr("holds no certificate in PEM"));
}

TEST_F(TlsSecurityTest, ARenewedCertificateKeepsTheLease) {
  ServeWithClients();
  const CertificateRequest own = {.common_name = "w", .names = "URI:spiffe://example.org/w1"};
  RpcClient before(server_->addresses().front(), Trusting(authority_, clients_.Issue(own)));
  Context creating;
  creating.AddMetadata("authorization", "Bearer alice-token");
  v1::CreateJobResponse created;
  ASSERT_TRUE(client_->jobs->CreateJob(&creating, TinyJob(dir_.path(), 0), &created).ok());
  const v1::Lease lease = before.Acquire().lease();
  v1::HeartbeatRequest beat;
  *beat.mutable_lease() = lease;
  const std::string body = beat.SerializeAsString();
  EXPECT_EQ(ReasonOf(Call(kHeartbeat, "other-worker-token", body)), "LEASE_HELD_BY_ANOTHER");
  RpcClient renewed(server_->addresses().front(), Trusting(authority_, clients_.Issue(own)));
  EXPECT_TRUE(CallByName(*renewed.channel, kHeartbeat, "", body).ok());
  EXPECT_TRUE(renewed.Succeed(lease).ok());
}

}  // namespace
}  // namespace latentforge::service
