#include "service/store/postgres_uri.h"

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/store/open_store.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(PostgresUriTest, AnythingElseIsAFile) {
  EXPECT_TRUE(IsPostgresUri("postgresql://h/db"));
  EXPECT_TRUE(IsPostgresUri("postgres://"));
  EXPECT_FALSE(IsPostgresUri("/var/lib/postgresql/jobs.db"));
  EXPECT_FALSE(IsPostgresUri("jobs.db"));
}

TEST(PostgresUriTest, PasswordsAreRefusedAndNotRepeated) {
  for (const char* uri : {"postgresql://u:sesame@h/db", "postgresql://u@h/db?password=sesame",
                          "postgresql://u@h/db?sslpassword=sesame", "postgresql://u:sesame%ZZ@h/db",
                          "postgresql://u:sesame@[h/db", "postgresql://u:sesame@h/db?nonsense=1"}) {
    const absl::Status status = CheckPostgresUri(uri);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << uri;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("sesame")));
    EXPECT_EQ(OpenStore({.database = uri}, RealClock()).status(), status);
  }
  EXPECT_THAT(std::string(CheckPostgresUri("postgresql://u:sesame@h/db").message()),
              HasSubstr("PGPASSFILE"));
}

TEST(PostgresUriTest, AnUnknownParameterIsNamed) {
  EXPECT_THAT(std::string(CheckPostgresUri("postgresql://h/db?sslmod=verify-full").message()),
              HasSubstr("\"sslmod\""));
  EXPECT_TRUE(CheckPostgresUri("postgresql://u@a:1,b:2/db?sslmode=verify-full").ok());
}

TEST(PostgresUriTest, LogsNameHostAndDatabaseAlone) {
  EXPECT_EQ(DescribeDatabase("postgresql://u:sesame@a:1,b:2/jobs?passfile=/secret&sslmode=require"),
            "postgresql://u@a,b:1,2/jobs");
  EXPECT_EQ(DescribeDatabase("postgresql://u@/?host=/run/socket&port=5433"),
            "postgresql://u@/run/socket:5433/u");
  EXPECT_EQ(DescribeDatabase("/var/lib/jobs.db"), "/var/lib/jobs.db");
}

TEST(OpenStoreTest, ALimitOfBytesIsForAFile) {
  const absl::Status status =
      OpenStore({.database = "postgresql://h/db", .max_bytes = 1}, RealClock()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--database-max-bytes"));
}

}  // namespace
}  // namespace latentforge::service
