// A server that asks who calls, and ways to call it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/file.h"
#include "gmock/gmock.h"
#include "grpc/grpc.h"
#include "service/auth/token_table.h"
#include "service/server.h"
#include "tests/service/rpc_client.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {

inline std::string TokenLine(const std::string& token, const std::string& rest) {
  return absl::StrCat(TokenTable::CredentialOf(token), " ", rest, "\n");
}

// Calls any method by name with a serialized request, and returns how that ends.
inline grpc::Status CallByName(grpc::Channel& channel, const std::string& method,
                               const std::string& token = "", const std::string& body = "") {
  Context context;
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  const grpc::internal::RpcMethod stream(method.c_str(),
                                         grpc::internal::RpcMethod::SERVER_STREAMING);
  const grpc::Slice bytes(body);
  const grpc::ByteBuffer request(&bytes, 1);
  const std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> reader(
      grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(&channel, stream, &context,
                                                                    request));
  grpc::ByteBuffer reply;
  while (reader->Read(&reply)) continue;
  return reader->Finish();
}

class SecurityTest : public testing::Test {
 protected:
  // As in main.cc: gRPC's own shutdown may wait 10 s for a broken connection.
  static void SetUpTestSuite() { grpc_init(); }

  SecurityTest() {
    options_.database = dir_.path() / "jobs.db";
    options_.token_file = dir_.path() / "tokens";
    options_.bookmark_interval = absl::Milliseconds(200);
    WriteTokens(kTokens);
  }

  void WriteTokens(const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(options_.token_file, text).ok());
  }

  // Serves on loopback, in the clear unless options_.tls says more: tokens are asked for there
  // too.
  void StartOnLoopback(const std::shared_ptr<grpc::ChannelCredentials>& credentials =
                           grpc::InsecureChannelCredentials()) {
    options_.listen.push_back(*ParseListenAddress("127.0.0.1:0"));
    auto started = Server::Start(options_, RealClock());
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    client_ = std::make_unique<RpcClient>(server_->addresses().front(), credentials);
  }

  grpc::Status Call(const std::string& method, const std::string& token = "",
                    const std::string& body = "") {
    return CallByName(*client_->channel, method, token, body);
  }

  inline static const std::string kTokens = TokenLine("alice-token", "alice search user") +
                                            TokenLine("bob-token", "bob speech user") +
                                            TokenLine("worker-token", "w1 default worker") +
                                            TokenLine("other-worker-token", "w2 default worker") +
                                            TokenLine("admin-token", "ops default admin");
  TempDir dir_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RpcClient> client_;
};

}  // namespace latentforge::service
