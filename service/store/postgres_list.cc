#include "service/store/postgres_list.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "service/store/postgres_rows.h"

namespace latentforge::service::postgres {
namespace {

constexpr char kPage[] = " ORDER BY ordinal DESC LIMIT $2";

// Of the rows of `table` but by their state. $1 is before_ordinal; after $2 come the tenant, where
// there is one, and each label's key and value.
std::string Conditions(const JobQuery& query, std::optional<size_t> few, absl::string_view table,
                       absl::string_view tenant) {
  // Of the table whose index is walked: an inequality is not taken over from the other one.
  std::string sql = absl::StrCat("WHERE ", table, ".ordinal < $1");
  int parameter = 2;
  if (!query.tenant.empty()) absl::StrAppend(&sql, " AND ", tenant, " = $", ++parameter);
  for (size_t label = 0; label < query.labels.size(); ++label) {
    const std::string labelled =
        absl::StrCat(" FROM job_labels WHERE key = $", parameter + 1, " AND value = $",
                     parameter + 2, " AND job_labels.ordinal ");
    parameter += 2;
    if (label == few) {
      absl::StrAppend(&sql, " AND ", table, ".ordinal IN (SELECT ordinal", labelled,
                      "< $1 ORDER BY ordinal DESC LIMIT ", kFewJobs, ")");
    } else {
      // OFFSET keeps it from becoming a join, which may read every job with the label.
      absl::StrAppend(&sql, " AND EXISTS (SELECT", labelled, "= ", table, ".ordinal OFFSET 0)");
    }
  }
  return sql;
}

// Each of its states in turn: with all in one condition an index gives no order. A page of each is
// as much as a page of all can have.
std::string MergedByState(const JobQuery& query, std::optional<size_t> few) {
  const std::string select = absl::StrCat("(SELECT ordinal FROM job_states ",
                                          Conditions(query, few, "job_states", "share_tenant"));
  const std::set<v1::JobState> states(query.states.begin(), query.states.end());
  return absl::StrJoin(states, " UNION ALL ", [&select](std::string* out, v1::JobState state) {
    absl::StrAppend(out, select, " AND state = ", static_cast<int>(state), kPage, ")");
  });
}

std::string ListText(const JobQuery& query, std::optional<size_t> few) {
  if (query.states.empty())
    return absl::StrCat(SelectJobs(), Conditions(query, few, "jobs", "tenant"), kPage);
  return absl::StrCat(SelectJobs(), "JOIN (", MergedByState(query, few),
                      ") AS page USING (ordinal)", kPage);
}

// The newest job with a label, and whether there are kFewJobs more.
struct Labelled {
  std::optional<int64_t> newest;
  bool many = false;
};

absl::StatusOr<Labelled> FindLabelled(PgConnection& connection, const std::string& key,
                                      const std::string& value, int64_t before_ordinal) {
  // By rows: this order only the index by label has.
  static const std::string kNewest =
      "SELECT ordinal FROM job_labels WHERE (key, value, ordinal) < ($1, $2, $3) "
      "AND (key, value) >= ($1, $2) ORDER BY key DESC, value DESC, ordinal DESC LIMIT 1";
  static const std::string kSelect =
      absl::StrCat("SELECT (", kNewest, "), EXISTS (", kNewest, " OFFSET ", kFewJobs, ")::integer");
  LF_ASSIGN_OR_RETURN(
      PgRows row,
      connection.RunKept(kSelect, PgParams().BindBlob(key).BindBlob(value).Bind(before_ordinal)));
  Labelled labelled;
  if (!row.Next() || row.NextIsNull()) return labelled;
  labelled.newest = row.Int();
  labelled.many = row.Int() != 0;
  return labelled;
}

}  // namespace

ListSql ListStatement(const JobQuery& query, std::optional<size_t> few) {
  ListSql sql{.text = ListText(query, few)};
  sql.params.Bind(query.before_ordinal).Bind(int64_t{query.limit});
  if (!query.tenant.empty()) sql.params.BindText(query.tenant);
  for (const auto& [key, value] : query.labels) sql.params.BindBlob(key).BindBlob(value);
  return sql;
}

absl::StatusOr<std::vector<JobRecord>> ListJobs(PgConnection& connection, const JobQuery& query) {
  JobQuery labelled = query;
  std::optional<size_t> few;
  size_t place = 0;
  for (const auto& [key, value] : query.labels) {
    LF_ASSIGN_OR_RETURN(const Labelled found,
                        FindLabelled(connection, key, value, labelled.before_ordinal));
    if (!found.newest.has_value()) return std::vector<JobRecord>();
    // Jobs that are newer than any with the label are not walked.
    labelled.before_ordinal = std::min(labelled.before_ordinal, *found.newest + 1);
    if (!found.many) few = place;
    ++place;
  }
  const ListSql sql = ListStatement(labelled, few);
  LF_ASSIGN_OR_RETURN(PgRows rows, connection.Run(sql.text, sql.params));
  return ReadJobs(rows);
}

}  // namespace latentforge::service::postgres
