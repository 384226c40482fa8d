#include "service/store/sqlite_list.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "service/store/sqlite_rows.h"

namespace latentforge::service::sqlite {
namespace {

constexpr char kPage[] = " ORDER BY ordinal DESC LIMIT ?2";

// Of every row but by its state. ?1 is before_ordinal; after ?2 come the tenant, where there is
// one, and each label's key and value.
std::string Conditions(const JobQuery& query, std::optional<size_t> few) {
  std::string sql = "WHERE ordinal < ?1";
  int parameter = 2;
  if (!query.tenant.empty()) absl::StrAppend(&sql, " AND tenant = ?", ++parameter);
  for (size_t label = 0; label < query.labels.size(); ++label) {
    const std::string labelled =
        absl::StrCat("FROM job_labels WHERE key = ?", parameter + 1, " AND value = ?",
                     parameter + 2, " AND job_labels.ordinal ");
    parameter += 2;
    if (label == few) {
      absl::StrAppend(&sql, " AND ordinal IN (SELECT ordinal ", labelled, "< ?1)");
    } else {
      absl::StrAppend(&sql, " AND EXISTS (SELECT 1 ", labelled, "= jobs.ordinal)");
    }
  }
  return sql;
}

// Each of its states in turn: with all in one condition an index gives no order.
std::string MergedByState(const JobQuery& query, const std::string& conditions) {
  const std::string select =
      absl::StrCat(SelectJobs(), "INDEXED BY ",
                   query.tenant.empty() ? "jobs_by_state " : "jobs_by_tenant_and_state ",
                   conditions, " AND state = ");
  const std::set<v1::JobState> states(query.states.begin(), query.states.end());
  return absl::StrJoin(states, " UNION ALL ", [&select](std::string* out, v1::JobState state) {
    absl::StrAppend(out, select, static_cast<int>(state));
  });
}

std::string InStates(const std::vector<v1::JobState>& states) {
  if (states.empty()) return "";
  const std::string list = absl::StrJoin(states, ",", [](std::string* out, v1::JobState state) {
    absl::StrAppend(out, static_cast<int>(state));
  });
  return absl::StrCat(" AND state IN (", list, ")");
}

using Label = std::pair<const std::string, std::string>;

// Of the jobs with the label, newest first, the one after `skipped` others.
absl::StatusOr<std::optional<int64_t>> FindLabelled(Database& db, const Label& label,
                                                    int64_t before_ordinal, int64_t skipped) {
  LF_ASSIGN_OR_RETURN(
      Statement select,
      db.Prepare("SELECT ordinal FROM job_labels WHERE key = ? AND value = ? AND ordinal < ? "
                 "ORDER BY ordinal DESC LIMIT 1 OFFSET ?"));
  select.BindText(label.first).BindText(label.second).Bind(before_ordinal).Bind(skipped);
  LF_ASSIGN_OR_RETURN(const bool found, select.Step());
  if (!found) return std::nullopt;
  return select.Int();
}

}  // namespace

// Left to itself SQLite may take another index and sort what it finds.
std::string ListStatement(const JobQuery& query, std::optional<size_t> few) {
  const std::string conditions = Conditions(query, few);
  if (few.has_value())
    return absl::StrCat(SelectJobs(), "NOT INDEXED ", conditions, InStates(query.states), kPage);
  if (!query.states.empty()) return MergedByState(query, conditions) + kPage;
  return absl::StrCat(SelectJobs(), query.tenant.empty() ? "" : "INDEXED BY jobs_by_tenant ",
                      conditions, kPage);
}

absl::StatusOr<std::vector<JobRecord>> ListJobs(Database& db, const JobQuery& query) {
  int64_t before_ordinal = query.before_ordinal;
  std::optional<size_t> few;
  size_t place = 0;
  for (const Label& label : query.labels) {
    LF_ASSIGN_OR_RETURN(const std::optional<int64_t> newest,
                        FindLabelled(db, label, before_ordinal, 0));
    if (!newest.has_value()) return std::vector<JobRecord>();
    // Jobs that are newer than any with the label are not walked.
    before_ordinal = std::min(before_ordinal, *newest + 1);
    LF_ASSIGN_OR_RETURN(const std::optional<int64_t> one_of_many,
                        FindLabelled(db, label, before_ordinal, kFewJobs));
    if (!one_of_many.has_value()) few = place;
    ++place;
  }
  LF_ASSIGN_OR_RETURN(Statement select, db.Prepare(ListStatement(query, few)));
  select.Bind(before_ordinal).Bind(int64_t{query.limit});
  if (!query.tenant.empty()) select.BindText(query.tenant);
  for (const auto& [key, value] : query.labels) select.BindText(key).BindText(value);
  return ReadJobs(select);
}

}  // namespace latentforge::service::sqlite
