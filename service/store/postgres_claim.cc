#include "service/store/postgres_claim.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/claim_choice.h"
#include "service/store/postgres_rows.h"
#include "service/store/postgres_writes.h"
#include "service/store/state_sets.h"

namespace latentforge::service::postgres {
namespace {

// "lfclaim" in ASCII. Unlike a locked row it costs no write where there is nothing to claim.
constexpr int64_t kClaimLock = 0x6c66636c61696d;

// Jobs and GPUs that the tenant has running.
absl::StatusOr<TenantUse> ReadRunning(PgConnection& connection, absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      connection.Run(ClaimStatements().running, PgParams().BindText(tenant)));
  rows.Next();
  TenantUse use;
  use.running = rows.Int();
  use.gpus = rows.Int();
  return use;
}

struct KindRow {
  JobKind kind;
  Contender first;
};

struct Queue {
  double clock = 0;
  std::vector<KindRow> kinds;
};

// The kinds with a job that is claimable now and that the worker can run.
absl::StatusOr<Queue> ReadQueue(PgConnection& connection, const ClaimQuery& query) {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      connection.Run(ClaimStatements().kinds, PgParams().Bind(query.now)));
  Queue queue;
  while (rows.Next()) {
    KindRow row;
    row.kind.tenant = rows.Text();
    row.kind.needs = rows.Text();
    row.first.rank_time = rows.Time();
    row.first.ordinal = rows.Int();
    row.first.virtual_time = rows.Double();
    queue.clock = rows.Double();
    if (Fits(query, row.kind)) queue.kinds.push_back(std::move(row));
  }
  return queue;
}

absl::Status DropForbidden(PgConnection& connection, const ClaimQuery& query,
                           std::vector<KindRow>& kinds) {
  std::map<std::string, TenantUse> uses;
  for (const KindRow& row : kinds) {
    const auto [use, added] = uses.try_emplace(row.kind.tenant);
    if (added && HasRunningLimit(query, row.kind.tenant)) {
      LF_ASSIGN_OR_RETURN(use->second, ReadRunning(connection, row.kind.tenant));
    }
  }
  std::erase_if(
      kinds, [&](const KindRow& row) { return !MayTake(query, row.kind, uses[row.kind.tenant]); });
  return absl::OkStatus();
}

std::optional<size_t> NextKind(const Queue& queue) {
  std::vector<Contender> contenders;
  for (const KindRow& row : queue.kinds) contenders.push_back(row.first);
  return NextTurn(contenders, queue.clock);
}

absl::Status WriteCharge(PgConnection& connection, const std::string& tenant,
                         const Charge& charge) {
  return connection
      .Run(
          "INSERT INTO tenant_shares VALUES ('', $1), ($2, $3) "
          "ON CONFLICT (tenant) DO UPDATE SET virtual_time = excluded.virtual_time",
          PgParams().Bind(charge.clock).BindText(tenant).Bind(charge.virtual_time))
      .status();
}

// A recursive query: what the tenant $1 needs of its jobs in a state, from one to the next.
std::string NeedsFrom(absl::string_view name, absl::string_view condition) {
  const std::string some =
      absl::StrCat("SELECT needs FROM job_states WHERE ", condition, " AND share_tenant = $1");
  return absl::StrCat(name, " AS ((", some, " ORDER BY needs LIMIT 1) UNION ALL SELECT next.needs ",
                      "FROM ", name, " CROSS JOIN LATERAL (", some, " AND needs > ", name,
                      ".needs ORDER BY needs LIMIT 1) AS next)");
}

ClaimSql MakeStatements() {
  // From one kind to the next by the index: however many jobs it has.
  const std::string next_kind =
      absl::StrCat("SELECT share_tenant AS tenant, needs FROM job_states WHERE ", kIsQueued);
  const std::string first = absl::StrCat(kIsQueued, " AND claimable_time <= ");
  return {
      .kinds =
          absl::StrCat("WITH RECURSIVE kinds AS ((", next_kind,
                       " ORDER BY share_tenant, needs LIMIT 1) UNION ALL "
                       "SELECT next.tenant, next.needs FROM kinds CROSS JOIN LATERAL (",
                       next_kind,
                       " AND (share_tenant, needs) > (kinds.tenant, kinds.needs) "
                       "ORDER BY share_tenant, needs LIMIT 1) AS next) "
                       "SELECT kinds.tenant, kinds.needs, first.rank_time, first.ordinal, "
                       "coalesce(tenant_shares.virtual_time, 0), "
                       "(SELECT virtual_time FROM tenant_shares WHERE tenant = '') "
                       "FROM kinds CROSS JOIN LATERAL (SELECT rank_time, ordinal FROM job_states "
                       "WHERE share_tenant = kinds.tenant AND needs = kinds.needs AND ",
                       first,
                       "$1 ORDER BY rank_time, ordinal LIMIT 1) AS first "
                       "LEFT JOIN tenant_shares ON tenant_shares.tenant = kinds.tenant"),
      .first_of_kind =
          absl::StrCat(SelectJobs(), "WHERE share_tenant = $1 AND needs = $2 AND ", first,
                       "$3 ORDER BY rank_time, ordinal LIMIT 1 "
                       "FOR UPDATE OF job_states SKIP LOCKED"),
      .running =
          absl::StrCat("SELECT count(*), coalesce(sum(gpus), 0)::bigint FROM job_states WHERE ",
                       kHoldsLease, " AND share_tenant = $1"),
      .waiting = absl::StrCat("SELECT (SELECT count(*) FROM job_states WHERE ", kIsQueued,
                              " AND share_tenant = $1), (SELECT count(*) FROM job_states WHERE ",
                              kIsPaused, " AND share_tenant = $1)"),
      .waiting_needs = absl::StrCat(
          "WITH RECURSIVE ", NeedsFrom("queued", kIsQueued), ", ", NeedsFrom("paused", kIsPaused),
          " SELECT needs FROM queued UNION SELECT needs FROM paused ORDER BY needs")};
}

}  // namespace

const ClaimSql& ClaimStatements() {
  static const ClaimSql statements = MakeStatements();
  return statements;
}

std::string WaitingNeedsExist(absl::string_view tenant, absl::string_view needs) {
  const std::string of_kind =
      absl::StrCat(" AND share_tenant = ", tenant, " AND needs = ", needs, ")");
  const absl::string_view some = "EXISTS (SELECT FROM job_states WHERE ";
  return absl::StrCat("(", some, kIsQueued, of_kind, " OR ", some, kIsPaused, of_kind, ")");
}

absl::StatusOr<std::vector<std::string>> ReadWaitingNeeds(PgConnection& connection,
                                                          absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      connection.Run(ClaimStatements().waiting_needs, PgParams().BindText(tenant)));
  std::vector<std::string> needs;
  while (rows.Next()) needs.push_back(rows.Text());
  return needs;
}

absl::StatusOr<bool> HasWaitingNeeds(PgConnection& connection, absl::string_view tenant,
                                     absl::string_view needs) {
  static const std::string kSelect =
      absl::StrCat("SELECT ", WaitingNeedsExist("$1", "$2"), "::integer");
  LF_ASSIGN_OR_RETURN(PgRows row,
                      connection.RunKept(kSelect, PgParams().BindText(tenant).BindText(needs)));
  return row.Next() && row.Int() != 0;
}

absl::StatusOr<TenantUse> ReadUse(PgConnection& connection, absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(TenantUse use, ReadRunning(connection, tenant));
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      connection.Run(ClaimStatements().waiting, PgParams().BindText(tenant)));
  rows.Next();
  use.queued = rows.Int();
  use.paused = rows.Int();
  return use;
}

absl::StatusOr<std::optional<JobRecord>> ClaimNext(PgConnection& connection,
                                                   const ClaimQuery& query,
                                                   const Store::DecideClaim& decide) {
  LF_RETURN_IF_ERROR(
      connection.Run("SELECT pg_advisory_xact_lock($1)", PgParams().Bind(kClaimLock)).status());
  LF_ASSIGN_OR_RETURN(Queue queue, ReadQueue(connection, query));
  LF_RETURN_IF_ERROR(DropForbidden(connection, query, queue.kinds));
  while (const std::optional<size_t> turn = NextKind(queue)) {
    const KindRow chosen = queue.kinds[*turn];
    // Jobs that their users are just changing are left to them.
    LF_ASSIGN_OR_RETURN(
        PgRows rows,
        connection.Run(
            ClaimStatements().first_of_kind,
            PgParams().BindText(chosen.kind.tenant).BindText(chosen.kind.needs).Bind(query.now)));
    if (!rows.Next()) {
      queue.kinds.erase(queue.kinds.begin() + static_cast<std::ptrdiff_t>(*turn));
      continue;
    }
    LF_ASSIGN_OR_RETURN(const JobRecord candidate, ReadJob(rows));
    LF_ASSIGN_OR_RETURN(const JobUpdate update, decide(candidate));
    LF_RETURN_IF_ERROR(WriteUpdate(connection, update));
    std::optional<JobRecord> claimed = update.record;
    claimed->version = update.expected_version + 1;
    if (!HoldsLease(claimed->job.status().state())) return claimed;
    LF_RETURN_IF_ERROR(
        WriteCharge(connection, candidate.tenant,
                    ChargeFor(query, candidate, chosen.first.virtual_time, queue.clock)));
    return claimed;
  }
  return std::nullopt;
}

}  // namespace latentforge::service::postgres
