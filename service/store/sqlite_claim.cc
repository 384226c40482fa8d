#include "service/store/sqlite_claim.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/claim_choice.h"
#include "service/store/sqlite_rows.h"
#include "service/store/sqlite_writes.h"
#include "service/store/state_sets.h"

namespace latentforge::service::sqlite {
namespace {

// The row of the clock; no tenant has this name.
constexpr char kClock[] = "";

// Jobs and GPUs that the tenant has running.
absl::StatusOr<TenantUse> ReadRunning(Database& db, absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(Statement select, db.Prepare(ClaimStatements().running));
  LF_RETURN_IF_ERROR(select.BindText(tenant).Step().status());
  TenantUse use;
  use.running = select.Int();
  use.gpus = select.Int();
  return use;
}

absl::StatusOr<double> ReadShare(Database& db, absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(Statement select,
                      db.Prepare("SELECT virtual_time FROM tenant_shares WHERE tenant = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, select.BindText(tenant).Step());
  return found ? select.Double() : 0;
}

absl::Status WriteShare(Database& db, absl::string_view tenant, double virtual_time) {
  LF_ASSIGN_OR_RETURN(Statement put,
                      db.Prepare("INSERT OR REPLACE INTO tenant_shares VALUES (?, ?)"));
  return put.BindText(tenant).Bind(virtual_time).Run();
}

// The kind that `query` finds; nullopt when there is none.
absl::StatusOr<std::optional<JobKind>> ReadKind(Statement& query) {
  LF_ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return std::nullopt;
  JobKind kind;
  kind.tenant = query.Text();
  kind.needs = query.Text();
  return kind;
}

// From one to the next by the index, however many jobs each has.
absl::StatusOr<std::vector<JobKind>> ReadKinds(Database& db) {
  LF_ASSIGN_OR_RETURN(Statement next_needs, db.Prepare(ClaimStatements().next_needs));
  LF_ASSIGN_OR_RETURN(Statement next_tenant, db.Prepare(ClaimStatements().next_tenant));
  std::vector<JobKind> kinds;
  LF_ASSIGN_OR_RETURN(std::optional<JobKind> kind, ReadKind(next_tenant.BindText("")));
  while (kind.has_value()) {
    kinds.push_back(*kind);
    next_needs.Reset();
    next_needs.BindText(kinds.back().tenant).BindText(kinds.back().needs);
    LF_ASSIGN_OR_RETURN(kind, ReadKind(next_needs));
    if (kind.has_value()) continue;
    next_tenant.Reset();
    LF_ASSIGN_OR_RETURN(kind, ReadKind(next_tenant.BindText(kinds.back().tenant)));
  }
  return kinds;
}

// What one claim knows of a tenant.
struct TenantState {
  TenantUse use;
  double virtual_time = 0;
};

absl::StatusOr<TenantState> ReadTenant(Database& db, const ClaimQuery& query,
                                       const std::string& tenant) {
  TenantState state;
  LF_ASSIGN_OR_RETURN(state.virtual_time, ReadShare(db, tenant));
  if (HasRunningLimit(query, tenant)) {
    LF_ASSIGN_OR_RETURN(state.use, ReadRunning(db, tenant));
  }
  return state;
}

// The first job of each kind that the worker may take.
absl::StatusOr<std::vector<Contender>> ReadContenders(Database& db, const ClaimQuery& query) {
  LF_ASSIGN_OR_RETURN(const std::vector<JobKind> kinds, ReadKinds(db));
  LF_ASSIGN_OR_RETURN(Statement first, db.Prepare(ClaimStatements().first_of_kind));
  std::map<std::string, TenantState> tenants;
  std::vector<Contender> contenders;
  for (const JobKind& kind : kinds) {
    if (!Fits(query, kind)) continue;
    const auto [tenant, added] = tenants.try_emplace(kind.tenant);
    if (added) {
      LF_ASSIGN_OR_RETURN(tenant->second, ReadTenant(db, query, kind.tenant));
    }
    if (!MayTake(query, kind, tenant->second.use)) continue;
    first.Reset();
    first.BindText(kind.tenant).BindText(kind.needs).Bind(query.now);
    LF_ASSIGN_OR_RETURN(const bool row, first.Step());
    if (!row) continue;
    const absl::Time rank_time = first.Time();
    contenders.push_back({tenant->second.virtual_time, rank_time, first.Int()});
  }
  return contenders;
}

absl::StatusOr<JobRecord> ReadByOrdinal(Database& db, int64_t ordinal) {
  LF_ASSIGN_OR_RETURN(Statement select, db.Prepare(SelectJobs() + "WHERE ordinal = ?"));
  LF_RETURN_IF_ERROR(select.Bind(ordinal).Step().status());
  return ReadJob(select);
}

absl::StatusOr<bool> HasNeeds(Database& db, absl::string_view tenant, absl::string_view needs) {
  LF_ASSIGN_OR_RETURN(Statement select, db.Prepare(ClaimStatements().has_needs));
  LF_RETURN_IF_ERROR(select.BindText(tenant).BindText(needs).Step().status());
  return select.Int() != 0;
}

// Adds what jobs of the tenant need, from one to the next as `sql` finds it behind "".
absl::Status AddNeeds(Database& db, const std::string& sql, absl::string_view tenant,
                      std::set<std::string>& needs) {
  LF_ASSIGN_OR_RETURN(Statement next, db.Prepare(sql));
  std::string after;
  while (true) {
    next.Reset();
    LF_ASSIGN_OR_RETURN(const std::optional<JobKind> kind,
                        ReadKind(next.BindText(tenant).BindText(after)));
    if (!kind.has_value()) return absl::OkStatus();
    after = kind->needs;
    needs.insert(after);
  }
}

// Left to itself SQLite may take an index by state or tenant and sort what it finds.
ClaimSql MakeStatements() {
  const std::string next_kind = absl::StrCat(
      "SELECT tenant, needs FROM jobs INDEXED BY jobs_by_kind WHERE ", kIsQueued, " AND ");
  const std::string next_paused = absl::StrCat(
      "SELECT tenant, needs FROM jobs INDEXED BY jobs_paused WHERE ", kIsPaused, " AND ");
  const std::string next_needs = "tenant = ? AND needs > ? ORDER BY needs LIMIT 1";
  const std::string of_kind = "tenant = ?1 AND needs = ?2)";
  // Not (tenant, needs) > (?, ?): SQLite looks for >= then, and passes by every job of the kind.
  return {.next_needs = next_kind + next_needs,
          .next_tenant = next_kind + "tenant > ? ORDER BY tenant, needs LIMIT 1",
          .first_of_kind = absl::StrCat(
              "SELECT rank_time, ordinal FROM jobs INDEXED BY jobs_by_kind WHERE ", kIsQueued,
              " AND tenant = ? AND needs = ? AND claimable_time <= ? "
              "ORDER BY rank_time, ordinal LIMIT 1"),
          .running = absl::StrCat(
              "SELECT count(*), coalesce(sum(gpus), 0) FROM jobs INDEXED BY jobs_running WHERE ",
              kHoldsLease, " AND tenant = ?"),
          .waiting = absl::StrCat(
              "SELECT (SELECT count(*) FROM jobs INDEXED BY jobs_by_kind WHERE ", kIsQueued,
              " AND tenant = ?1), "
              "(SELECT count(*) FROM jobs INDEXED BY jobs_paused WHERE ",
              kIsPaused, " AND tenant = ?1)"),
          .next_paused = next_paused + next_needs,
          .has_needs = absl::StrCat("SELECT EXISTS (", next_kind, of_kind, " OR EXISTS (",
                                    next_paused, of_kind)};
}

}  // namespace

const ClaimSql& ClaimStatements() {
  static const ClaimSql statements = MakeStatements();
  return statements;
}

absl::StatusOr<std::vector<std::string>> ReadWaitingNeeds(Database& db, absl::string_view tenant) {
  std::set<std::string> needs;
  LF_ASSIGN_OR_RETURN(const bool some_need_nothing, HasNeeds(db, tenant, ""));
  if (some_need_nothing) needs.insert("");
  LF_RETURN_IF_ERROR(AddNeeds(db, ClaimStatements().next_needs, tenant, needs));
  LF_RETURN_IF_ERROR(AddNeeds(db, ClaimStatements().next_paused, tenant, needs));
  return std::vector<std::string>(needs.begin(), needs.end());
}

absl::Status CheckKinds(Database& db, const JobRecord& record, int64_t max_kinds) {
  if (max_kinds == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const bool known, HasNeeds(db, record.tenant, record.needs));
  if (known) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> waiting, ReadWaitingNeeds(db, record.tenant));
  return CheckKindQuota(record.tenant, waiting, record.needs, max_kinds);
}

absl::StatusOr<TenantUse> ReadUse(Database& db, absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(TenantUse use, ReadRunning(db, tenant));
  LF_ASSIGN_OR_RETURN(Statement select, db.Prepare(ClaimStatements().waiting));
  LF_RETURN_IF_ERROR(select.BindText(tenant).Step().status());
  use.queued = select.Int();
  use.paused = select.Int();
  return use;
}

absl::StatusOr<std::optional<JobRecord>> ClaimNext(Database& db, const ClaimQuery& query,
                                                   const Store::DecideClaim& decide) {
  LF_ASSIGN_OR_RETURN(const std::vector<Contender> contenders, ReadContenders(db, query));
  LF_ASSIGN_OR_RETURN(const double clock, ReadShare(db, kClock));
  const std::optional<size_t> turn = NextTurn(contenders, clock);
  if (!turn.has_value()) return std::nullopt;
  LF_ASSIGN_OR_RETURN(const JobRecord candidate, ReadByOrdinal(db, contenders[*turn].ordinal));
  LF_ASSIGN_OR_RETURN(const JobUpdate update, decide(candidate));
  LF_ASSIGN_OR_RETURN(std::optional<JobRecord> claimed, WriteUpdate(db, update));
  if (!HoldsLease(claimed->job.status().state())) return claimed;
  const Charge charge = ChargeFor(query, candidate, contenders[*turn].virtual_time, clock);
  LF_RETURN_IF_ERROR(WriteShare(db, kClock, charge.clock));
  LF_RETURN_IF_ERROR(WriteShare(db, candidate.tenant, charge.virtual_time));
  return claimed;
}

}  // namespace latentforge::service::sqlite
