#include "service/store/postgres_uri.h"

#include <libpq-fe.h>

#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace latentforge::service {
namespace {

using Options = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;

// The values that are set, by keyword.
std::map<std::string, std::string> Values(const Options& options) {
  std::map<std::string, std::string> values;
  for (const PQconninfoOption* option = options.get(); option && option->keyword; ++option)
    if (option->val != nullptr && *option->val != '\0') values[option->keyword] = option->val;
  return values;
}

// What libpq says about a URI may repeat it, but for the name of a parameter.
std::string WhatIsWrong(absl::string_view message) {
  if (absl::StartsWith(message, "invalid URI query parameter"))
    return absl::StrCat(": ", absl::StripSuffix(message, "\n"));
  return "";
}

}  // namespace

bool IsPostgresUri(absl::string_view database) {
  return absl::StartsWith(database, "postgresql://") || absl::StartsWith(database, "postgres://");
}

absl::Status CheckPostgresUri(const std::string& uri) {
  char* message = nullptr;
  const Options options(PQconninfoParse(uri.c_str(), &message), &PQconninfoFree);
  const std::unique_ptr<char, decltype(&PQfreemem)> owned(message, &PQfreemem);
  if (options == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the database is no valid URI", WhatIsWrong(message == nullptr ? "" : message),
                     "; expected postgresql://user@host:port/name?parameter=value, with %XX for "
                     "special characters"));
  }
  const std::map<std::string, std::string> values = Values(options);
  if (values.count("password") != 0 || values.count("sslpassword") != 0) {
    return absl::InvalidArgumentError(
        "the database's URI holds a password, which everybody who lists the processes of this "
        "machine sees; put it into a file named by ?passfile= or PGPASSFILE, or into PGPASSWORD");
  }
  return absl::OkStatus();
}

std::string DescribePostgres(const std::string& uri) {
  std::map<std::string, std::string> values = Values(Options(PQconndefaults(), &PQconninfoFree));
  for (const auto& [key, value] :
       Values(Options(PQconninfoParse(uri.c_str(), nullptr), &PQconninfoFree)))
    values[key] = value;
  const std::string user = values["user"];
  const std::string name = values["dbname"].empty() ? user : values["dbname"];
  return absl::StrCat("postgresql://", user, "@", values["host"], ":", values["port"], "/", name);
}

}  // namespace latentforge::service
