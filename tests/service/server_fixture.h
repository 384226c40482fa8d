// A whole server within the test's process, and a client of it.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "grpc/grpc.h"
#include "gtest/gtest.h"
#include "service/server.h"
#include "tests/service/rpc_client.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {

class ServerTest : public testing::Test {
 protected:
  // As in main.cc: gRPC's own shutdown may wait 10 s for a broken connection.
  static void SetUpTestSuite() { grpc_init(); }

  ServerOptions Options() const {
    ServerOptions options;
    options.listen.push_back(
        *ParseListenAddress(absl::StrCat("unix:", (dir_.path() / "server.sock").string())));
    options.database = dir_.path() / "jobs.db";
    options.bookmark_interval = absl::Seconds(15);
    options.drain_grace = absl::Seconds(2);
    return options;
  }

  void Start(const ServerOptions& options) {
    auto started = Server::Start(options, RealClock());
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    client_ = std::make_unique<RpcClient>(server_->addresses().front());
  }

  std::string CreateJob(int number = 0) {
    v1::CreateJobResponse response;
    const grpc::Status status = client_->Create(TinyJob(dir_.path(), number), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().name();
  }

  static v1::WatchJobRequest WatchRequest(const std::string& name, int64_t from) {
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_from_sequence(from);
    return request;
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RpcClient> client_;
};

}  // namespace latentforge::service
