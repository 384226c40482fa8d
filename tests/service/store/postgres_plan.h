// What PostgreSQL does for a statement where there are many jobs.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "latentforge/v1/job.pb.h"
#include "service/store/postgres_db.h"

namespace latentforge::service {

// Jobs of a tenant: `first` to `last` by number, in a state.
inline std::string InsertJobs(int first, int last, const std::string& tenant, v1::JobState state) {
  const std::string numbers = absl::StrCat("generate_series(", first, ", ", last, ") AS n");
  return absl::StrCat(
      "INSERT INTO jobs (id, tenant, job, estimate) SELECT 'j' || n, '", tenant, "', '', '' FROM ",
      numbers, ";", "INSERT INTO job_states SELECT n, 1, '', 0, ", int{state},
      ", '', '', 1, 0, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, n, 0, 0, '", tenant,
      "', CASE n % 3 WHEN 0 THEN '' WHEN 1 THEN '1024' ELSE 'cuda 4096' END, 0 FROM ", numbers,
      ";");
}

// How it has run the statement, a line for each step.
inline std::string RunPlanOf(PgConnection& connection, const std::string& sql,
                             const PgParams& params) {
  auto rows = connection.Run("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) " + sql, params);
  EXPECT_TRUE(rows.ok()) << rows.status();
  std::string plan;
  while (rows.ok() && rows->Next()) absl::StrAppend(&plan, rows->Text(), "\n");
  return plan;
}

}  // namespace latentforge::service
