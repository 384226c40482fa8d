#include "tests/service/store/postgres_server.h"

#include <pwd.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/clock.h"
#include "base/file.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

constexpr char kSuperuser[] = "postgres";
constexpr absl::Duration kPatience = absl::Seconds(60);

// The folder of the newest version from 15 on; empty when there is none.
fs::path FindPrograms() {
  fs::path found;
  int newest = 14;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator("/usr/lib/postgresql", error)) {
    int version = 0;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &version) || version <= newest)
      continue;
    if (!fs::exists(entry.path() / "bin" / "postgres")) continue;
    newest = version;
    found = entry.path() / "bin";
  }
  return found;
}

}  // namespace

PostgresServer::PostgresServer() : programs_(FindPrograms()) {
  // First: without a folder of its own a URI would name the machine's PostgreSQL.
  std::string pattern = (fs::temp_directory_path() / "lf-postgres-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << pattern;
  folder_ = pattern;
  if (programs_.empty()) {
    ADD_FAILURE() << "there is no PostgreSQL 15 or newer below /usr/lib/postgresql; install it: "
                     "apt-get install postgresql-15";
    return;
  }
  const passwd* user = geteuid() == 0 ? getpwnam(kSuperuser) : nullptr;
  if (user != nullptr && chown(folder_.c_str(), user->pw_uid, user->pw_gid) != 0)
    ADD_FAILURE() << "chown " << folder_;
  EXPECT_TRUE(RunProgram("initdb", {"--pgdata", folder_ / "data", "--username", kSuperuser,
                                    "--no-sync", "--encoding", "UTF8", "--locale", "C"}))
      << ReadFile(folder_ / "initdb.log").value_or("");
  std::ofstream(folder_ / "data/pg_hba.conf")
      << "local all " << kGuardedRole << " scram-sha-256\nlocal all all trust\n";
  Start();
  RunSql(Uri("postgres"),
         absl::StrCat("CREATE ROLE ", kGuardedRole, " LOGIN PASSWORD '", kPassword, "'"));
}

PostgresServer::~PostgresServer() {
  process_.reset();
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

PostgresServer& PostgresServer::Shared() {
  static PostgresServer server;
  return server;
}

ChildCommand PostgresServer::Command(const std::string& name,
                                     const std::vector<std::string>& arguments) const {
  ChildCommand command;
  if (geteuid() == 0) {
    command.argv = {"/usr/bin/setpriv", absl::StrCat("--reuid=", kSuperuser),
                    absl::StrCat("--regid=", kSuperuser), "--init-groups",
                    // The kernel forgets the one that ChildProcess asked for.
                    "--pdeathsig=KILL"};
  }
  command.argv.push_back((programs_ / name).string());
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.log = folder_ / (name + ".log");
  return command;
}

bool PostgresServer::RunProgram(const std::string& name,
                                const std::vector<std::string>& arguments) {
  auto process = ChildProcess::Start(Command(name, arguments));
  EXPECT_TRUE(process.ok()) << process.status();
  return process.ok() && (*process)->Wait(kPatience) && (*process)->exit_status().ok();
}

void PostgresServer::Start() {
  auto process = ChildProcess::Start(
      Command("postgres", {"-D", folder_ / "data", "-k", folder_, "-c", "listen_addresses=", "-c",
                           "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB",
                           "-c", "dynamic_shared_memory_type=mmap", "-c", "max_connections=60"}));
  ASSERT_TRUE(process.ok()) << process.status();
  process_ = *std::move(process);
  const absl::Duration deadline = RealClock().Monotonic() + kPatience;
  absl::Status status;
  do {
    RealClock().SleepFor(absl::Milliseconds(20));  // between polls of another process
    status = PgConnection::Connect(Uri("postgres"), {}).status();
  } while (!status.ok() && RealClock().Monotonic() < deadline);
  ASSERT_TRUE(status.ok()) << status << ReadFile(folder_ / "postgres.log").value_or("");
}

void PostgresServer::Stop() {
  process_->Signal(SIGQUIT);
  EXPECT_TRUE(process_->Wait(kPatience));
  process_.reset();
}

std::string PostgresServer::Uri(const std::string& database) const {
  return absl::StrCat("postgresql://", kSuperuser, "@/", database, "?host=", folder_.string());
}

std::string PostgresServer::NewDatabase() {
  const std::string name = absl::StrCat("test", ++databases_);
  RunSql(Uri("postgres"), absl::StrCat("CREATE DATABASE ", name));
  return Uri(name);
}

std::string PostgresServer::WithRole(const std::string& uri, const std::string& role) {
  return absl::StrReplaceAll(uri, {{absl::StrCat("//", kSuperuser, "@"), "//" + role + "@"}});
}

std::string PostgresServer::With(const std::string& uri, const std::string& parameters) {
  return absl::StrCat(uri, "&", parameters);
}

void RunSql(const std::string& uri, const std::string& script) {
  auto connection = PgConnection::Connect(uri, {});
  ASSERT_TRUE(connection.ok()) << connection.status();
  const absl::Status status = connection->Execute(script);
  EXPECT_TRUE(status.ok()) << status;
}

int64_t AskSql(const std::string& uri, const std::string& query) {
  auto connection = PgConnection::Connect(uri, {});
  EXPECT_TRUE(connection.ok()) << connection.status();
  if (!connection.ok()) return -1;
  auto rows = connection->Run(query);
  EXPECT_TRUE(rows.ok()) << rows.status();
  return rows.ok() && rows->Next() ? rows->Int() : -1;
}

}  // namespace latentforge::service
