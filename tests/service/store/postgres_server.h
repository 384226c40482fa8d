// A PostgreSQL of the test program's own.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/child_process.h"
#include "service/store/postgres_db.h"

namespace latentforge::service {

// Lives in a temporary folder and listens on a Unix socket there. Runs as the user
// postgres when the test runs as root, which PostgreSQL refuses. A test fails, and says
// what to install, where there is no PostgreSQL. For one thread.
class PostgresServer {
 public:
  // The role that must give kPassword; everybody else is trusted.
  static constexpr char kGuardedRole[] = "guarded";
  static constexpr char kPassword[] = "correct-horse";

  // Makes and starts it.
  PostgresServer();
  ~PostgresServer();

  // One for all tests of the program, which they leave running.
  static PostgresServer& Shared();

  void Start();
  // Ends it at once, as a crash would: what was committed stays.
  void Stop();
  bool running() const { return process_ != nullptr; }

  // The URI of a new, empty database.
  std::string NewDatabase();
  // The same database with another role, or with more parameters.
  static std::string WithRole(const std::string& uri, const std::string& role);
  static std::string With(const std::string& uri, const std::string& parameters);

 private:
  std::string Uri(const std::string& database) const;
  bool RunProgram(const std::string& name, const std::vector<std::string>& arguments);
  ChildCommand Command(const std::string& name, const std::vector<std::string>& arguments) const;

  std::filesystem::path programs_;
  std::filesystem::path folder_;
  std::unique_ptr<ChildProcess> process_;
  int databases_ = 0;
};

// Runs statements on a connection of its own; fails the test when they fail.
void RunSql(const std::string& uri, const std::string& script);

// The first column of the first row as a number.
int64_t AskSql(const std::string& uri, const std::string& query);

}  // namespace latentforge::service
