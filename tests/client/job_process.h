// The real `latentforge` against a real server without workers.
#pragma once

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/child_process.h"
#include "client/child_output.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::client {

namespace fs = std::filesystem;

struct Ending {
  std::string how;
  std::string output;
  std::string messages;
};

inline Ending Finish(ChildProcess& child) {
  Ending ending;
  const absl::StatusOr<std::string> output = ReadChildOutput(
      child, [&](const std::string& line) { absl::StrAppend(&ending.messages, line, "\n"); },
      [] {});
  EXPECT_TRUE(output.ok()) << output.status();
  ending.output = output.value_or("");
  ending.how = child.exit_status().ToString();
  return ending;
}

// What it writes first.
inline ChildOutput AwaitOutput(ChildProcess& child) {
  ChildOutput output;
  while (output.out.empty() && output.err.empty() && !child.finished()) {
    EXPECT_TRUE(child.Poll(-1, absl::Seconds(1), &output).ok());
  }
  return output;
}

class JobTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = checkpoint::NewTestDirectory("job");
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(folder_ / "model").ok());
    std::ofstream(folder_ / "text.txt") << std::string(1 << 16, 'a') << "\n";
    address_ = absl::StrCat("unix:", (folder_ / "sock").string());
    StartServer();
  }

  void StartServer(const std::vector<std::string>& more = {}) {
    std::vector<std::string> command = {Program("latentforge-server"),
                                        "--listen",
                                        address_,
                                        "--database",
                                        folder_ / "db",
                                        "--ready-file",
                                        folder_ / "ready",
                                        "--drain-delay",
                                        "0s"};
    command.insert(command.end(), more.begin(), more.end());
    auto server = ChildProcess::Start({.argv = command, .log = folder_ / "server.log"});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(folder_ / "ready")) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      usleep(5000);
    }
  }

  void TearDown() override {
    server_.reset();
    std::error_code ignored;  // a leftover in the temporary folder does no harm
    fs::remove_all(folder_, ignored);
  }

  static std::string Program(const std::string& name) {
    return fs::path(LATENTFORGE_BINARY_DIR) / "bin" / name;
  }

  std::unique_ptr<ChildProcess> Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), Program("latentforge"));
    auto child = ChildProcess::Start({.argv = arguments});
    EXPECT_TRUE(child.ok()) << child.status();
    return std::move(*child);
  }

  // With --server.
  Ending Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--server", address_});
    return Finish(*Start(arguments));
  }

  Ending Submit(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "job",          "submit",        folder_ / "model",    "--kv-budget",
        "0.5",          "--calibration", folder_ / "text.txt", "--out",
        folder_ / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }

  fs::path folder_;
  std::string address_;
  std::unique_ptr<ChildProcess> server_;
};

}  // namespace latentforge::client
