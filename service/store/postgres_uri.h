// Which PostgreSQL database to use, without ever repeating a password.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

// "postgresql://…" or "postgres://…"; anything else names a file.
bool IsPostgresUri(absl::string_view database);

// InvalidArgument when libpq would not understand the URI, and when it holds a
// password: whoever lists processes would see it.
absl::Status CheckPostgresUri(const std::string& uri);

// "postgresql://user@host:port/name" for logs and errors; what the URI leaves out is
// taken from the environment, as libpq does. A valid URI.
std::string DescribePostgres(const std::string& uri);

}  // namespace latentforge::service
