// The real programs in a folder of their own, with a fake compute process, a tiny model and a text.
#pragma once

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/child_process.h"
#include "base/file.h"
#include "client/child_output.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::client {

class ProgramsFixture : public testing::Test {
 protected:
  struct Ending {
    std::string how;
    std::string output;
    std::string progress;
  };

  // Below: model, text.txt, and bin, as the programs look for each other beside themselves.
  void SetUp() override {
    folder_ =
        checkpoint::NewTestDirectory(testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(folder_ / "model").ok());
    std::ofstream(folder_ / "text.txt") << std::string(1 << 16, 'a') << "\n";
    std::filesystem::create_directories(folder_ / "bin");
    const std::filesystem::path built = std::filesystem::path(LATENTFORGE_BINARY_DIR) / "bin";
    for (const char* name : {"latentforge", "latentforge-server", "latentforge-worker"}) {
      Copy(built / name, folder_ / "bin" / name);
    }
    Copy(built / "fake_convert", folder_ / "bin" / "latentforge-convert");
  }

  void TearDown() override {
    std::error_code ignored;  // a leftover in the temporary folder does no harm
    std::filesystem::remove_all(folder_, ignored);
  }

  // What the fake compute process does in its attempts; "@" is the test's folder.
  void WriteScript(const std::filesystem::path& path, const std::string& attempts) const {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << absl::StrReplaceAll(absl::StrCat("{\"attempts\": [", attempts, "]}"),
                                               {{"@", folder_.string()}});
  }

  // `latentforge` with these arguments.
  std::unique_ptr<ChildProcess> Launch(std::vector<std::string> arguments,
                                       const std::vector<std::string>& more) const {
    arguments.insert(arguments.begin(), folder_ / "bin" / "latentforge");
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto child = ChildProcess::Start({.argv = arguments});
    EXPECT_TRUE(child.ok()) << child.status();
    return std::move(*child);
  }

  // Reads until the end; `each` sees every line of progress.
  static Ending Finish(
      ChildProcess& child,
      const std::function<void(const std::string&)>& each = [](const auto&) {}) {
    Ending ending;
    const absl::StatusOr<std::string> read = ReadChildOutput(
        child,
        [&](const std::string& line) {
          absl::StrAppend(&ending.progress, line, "\n");
          each(line);
        },
        [] {});
    EXPECT_TRUE(read.ok()) << read.status();
    ending.output = read.value_or("");
    ending.how = child.exit_status().ToString();
    return ending;
  }

  static bool Await(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      usleep(5000);
    }
    return true;
  }

  static std::vector<std::string> Listed(const std::filesystem::path& folder) {
    return ListDirectory(folder).value_or(std::vector<std::string>{"unreadable"});
  }

  std::filesystem::path folder_;

 private:
  static void Copy(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::error_code error;
    std::filesystem::create_hard_link(from, to, error);
    if (error) std::filesystem::copy_file(from, to);
  }
};

}  // namespace latentforge::client
