// A database that many inputs of a fuzzer use, one after another: making one takes longer than all
// calls of an input.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/store/sqlite_db.h"
#include "service/store/sqlite_store.h"

namespace latentforge::service {

// Ends the process where the database cannot be used.
class EmptyStore {
 public:
  EmptyStore()
      : store_(*SqliteStore::Open(file_)),
        database_(*Database::Open(file_, Database::Mode::kReadWrite)),
        tables_(Tables()) {}
  ~EmptyStore() { std::filesystem::remove_all(file_.parent_path()); }

  SqliteStore& Clear() {
    for (const std::string& table : tables_)
      if (!database_.Execute(absl::StrCat("DELETE FROM ", table)).ok()) abort();
    return *store_;
  }

 private:
  // In memory, where there is such a folder.
  static std::filesystem::path NewFile() {
    namespace fs = std::filesystem;
    const fs::path parent = fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    std::string pattern = (parent / "lf-fuzz-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) abort();
    return fs::path(pattern) / "jobs.db";
  }

  // All of the schema's, whatever a later version adds, but those that say what it is.
  std::vector<std::string> Tables() {
    auto query = database_.Prepare(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'schema_migrations'");
    if (!query.ok()) abort();
    std::vector<std::string> tables;
    while (true) {
      const auto row = query->Step();
      if (!row.ok()) abort();
      if (!*row) return tables;
      tables.push_back(query->Text());
    }
  }

  const std::filesystem::path file_ = NewFile();
  const std::unique_ptr<SqliteStore> store_;
  Database database_;
  const std::vector<std::string> tables_;
};

}  // namespace latentforge::service
