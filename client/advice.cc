#include "client/advice.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace latentforge::client {
namespace {

struct Row {
  absl::string_view key;
  absl::string_view value;
};

constexpr Row kAdvice[] = {
    {"ALREADY_CONVERTED", "give the original checkpoint"},
    {"ARTIFACT_CORRUPT", "run it again; if it fails again, check the disk of the output"},
    {"ATTEMPT_NOT_FOUND", "latentforge job attempts JOB"},
    {"ATTEMPT_STOPPED", "look into the worker's log"},
    {"BAD_NAME", "latentforge job list shows the names of jobs"},
    {"BAD_PAGE_TOKEN", "start at the first page: leave --page-token out"},
    {"BAD_URI", "give the path of a file or folder that the server can see"},
    {"BUDGET_OUT_OF_RANGE",
     "give one of --kv-budget and --max-perplexity-ratio, within its limits; latentforge model "
     "inspect "
     "MODEL shows budgets"},
    {"CALL_DEADLINE", "repeat the command"},
    {"CERTIFICATE_NOT_KNOWN",
     "ask the server's operator for a line with the certificate's name in the token file"},
    {"CHECKPOINT_CORRUPT", "run it again; if it fails again, check the disk of the work folder"},
    {"CHILD_DIED", "read the log that the message names; the same command goes on"},
    {"CONCURRENT_TRANSITION", "repeat the command"},
    {"CONVERSION_RUNNING", "wait for the other run, or stop it with Ctrl-C"},
    {"CORPUS_NOT_READABLE", "name a text file that can be read where the computation runs"},
    {"CREDENTIALS_MISSING",
     "name the file that holds your token: --token-file, LATENTFORGE_TOKEN_FILE"},
    {"DEADLINE_TOO_LONG", "give a shorter deadline; the message says how long it may be"},
    {"DEVICE_UNAVAILABLE", "leave --device out, or name one that the machine has"},
    {"DRAINING", "repeat the command when the server's successor is there"},
    {"ETAG_MISMATCH", "look at the job again: latentforge job get JOB"},
    {"EVENT_STREAM_INVALID", "install worker and compute process of one version"},
    {"GPU_OUT_OF_MEMORY", "use --device cpu, or shorter sequences: --sequence-length"},
    {"INTERNAL", "try again; if it fails again, report it with this message"},
    {"INTERRUPTED", "run the command again"},
    {"INVALID_SPEC", "correct what the message names"},
    {"JOB_CANCELLING", "wait for its end: latentforge job watch JOB"},
    {"JOB_CANCELLED", "submit it again if it is still wanted"},
    {"JOB_DEADLINE",
     "raise --deadline or --run-deadline, or make the job smaller: --calibration-sequences"},
    {"JOB_DELETED", "use another --request-id for another job"},
    {"JOB_NOT_ENDED", "latentforge job cancel JOB, and wait for its end"},
    {"JOB_NOT_FOUND", "latentforge job list"},
    {"JOB_NOT_RETRYABLE", "submit it again: latentforge job submit"},
    {"JOB_TERMINAL", "latentforge job get JOB shows how it ended"},
    {"LEASE_HELD_BY_ANOTHER",
     "give each worker the token or certificate of its own subject for as long as it runs"},
    {"MALFORMED_CHECKPOINT",
     "download the whole checkpoint again: its config.json and *.safetensors are not of one model"},
    {"MALFORMED_CONFIG", "download config.json again"},
    {"MALFORMED_CORPUS",
     "give a text in UTF-8 that is not empty; JSON lines need the field that holds it"},
    {"MALFORMED_SAFETENSORS", "download the weights again"},
    {"MALFORMED_TOKENIZER", "download tokenizer.json again"},
    {"METHOD_NOT_SUPPORTED", "leave --method out"},
    {"NUMERICAL_FAILURE", "try --dtype float32, or other calibration text"},
    {"OUTPUT_DISK_FULL", "free disk space, or choose another --out"},
    {"OUTPUT_IN_USE", "choose another --out, or wait for the job that writes there"},
    {"OUTPUT_NOT_EMPTY", "choose another --out, or remove the folder; nothing is overwritten"},
    {"OUTPUT_NOT_WRITABLE", "choose a folder that the worker may write: --out"},
    {"OUTPUT_OVERLAPS_SOURCE", "choose an --out apart from the model's folder"},
    {"OUT_OF_MEMORY", "use shorter sequences (--sequence-length), or a machine with more memory"},
    {"PATH_NOT_ALLOWED",
     "move the files there, or ask the server's operator for other roots: --allowed-root, or "
     "allowed_roots of your tenant"},
    {"PROGRAM_UNUSABLE", "install latentforge in full: its programs belong into one folder"},
    {"QUEUE_DEADLINE", "start more workers, or raise --queue-deadline"},
    {"QUALITY_GATE_FAILED",
     "read the report, then raise --kv-budget or --quality-gate, or add --heal"},
    {"QUOTA_QUEUED_JOBS",
     "wait until jobs of your tenant have started, or cancel some: latentforge job list --state "
     "queued"},
    {"QUOTA_QUEUED_KINDS",
     "ask for the worker labels and device that another waiting job of your tenant asks for, or "
     "wait until some have started"},
    {"RANK_OUT_OF_RANGE", "latentforge model inspect MODEL shows widths and budgets"},
    {"RATE_LIMITED", "wait for the time that the message names, and repeat the command"},
    {"REPORT_REFUSED", "look into the logs of server and worker"},
    {"REQUEST_ID_REUSED", "use another --request-id for another job"},
    {"ROLE_NOT_ALLOWED", "use a token of a role that the message names"},
    {"SCRATCH_FULL",
     "free disk space, or choose another folder: --work-dir, or the worker's --scratch"},
    {"SCRATCH_NOT_WRITABLE", "give the worker a folder that it may write: --scratch"},
    {"SCRATCH_UNUSABLE", "give the worker a folder that it may write: --scratch"},
    {"SEQUENCE_AHEAD", "give a lower --from-sequence"},
    {"SEQUENCE_COMPACTED", "leave --from-sequence out"},
    {"SERVER_NOT_TRUSTED",
     "give the certificates that vouch for the server: --tls-ca; and call it by a name that its "
     "certificate has: --server, --tls-server-name"},
    {"SERVER_UNREACHABLE",
     "start latentforge-server there, or name another server: --server, LATENTFORGE_SERVER"},
    {"SIGNING_KEYS_MISSING",
     "repeat the command; if it fails again, look into the server's log for --oidc-jwks"},
    {"SLOW_CONSUMER", "read what comes as it comes, and open the stream again behind it"},
    {"SOURCE_CORRUPT", "download the weights again"},
    {"SOURCE_NOT_READABLE",
     "name the folder that holds config.json, *.safetensors and tokenizer.json themselves, not "
     "links to elsewhere, all readable where the computation runs"},
    {"STORE_BUSY", "repeat the command"},
    {"STORE_CONFLICT", "repeat the command"},
    {"STORE_CORRUPT", "restore the server's database from a back-up"},
    {"STORE_DOWN", "repeat the command; with its --request-id a job is made once"},
    {"STORE_FAILED", "look into the server's log"},
    {"STORE_FULL", "free disk space, delete jobs, or raise the server's --database-max-bytes"},
    {"STORE_UNWRITABLE", "let the server write its --database"},
    {"TOKEN_EXPIRED", "get a new token, and put it into the file that --token-file names"},
    {"TOKEN_INVALID", "ask the server's operator for a new token"},
    {"TOO_FEW_TOKENS",
     "give more text, or ask for fewer sequences or windows; --help names the flags"},
    {"TOO_MANY_WATCHES", "close watches, or raise the server's limit that the message names"},
    {"UNKNOWN", "look into the worker's log"},
    {"UNSUPPORTED_ARCHITECTURE",
     "give a checkpoint whose family and options README.md lists; latentforge model inspect MODEL "
     "shows what its config.json says"},
    {"VERSION_MISMATCH", "install the same version of server and worker"},
    {"WAIT_TIMED_OUT", "watch the job again: latentforge job watch JOB"},
    {"WORKER_CRASHED", "look into the worker's log"},
    {"WORKER_LOST", "look whether the worker was killed or its machine is away"},
    {"WORKER_MISCONFIGURED", "look into the worker's log, and install it in full"},
    {"WORKER_NAME_TAKEN", "start the worker with another --name"},
    {"WORKER_ROOTS_TOO_NARROW",
     "start the worker with other --allowed-root's, or send the job to another one: "
     "--worker-label"},
    {"WORK_DIR_IN_USE", "wait for the other process that works in the folder"},
};

// Longer prefixes before shorter ones.
constexpr Row kFlags[] = {
    {"spec.source", "MODEL"},
    {"spec.output.dtype", "--output-dtype"},
    {"spec.output", "--out"},
    {"spec.budget.kv_budget", "--kv-budget"},
    {"spec.budget.max_perplexity_ratio", "--max-perplexity-ratio"},
    {"spec.budget.parameter_ratio", "--ratio"},
    {"spec.low_rank.layout", "--factor-layout"},
    {"spec.low_rank.query_key", "--query-key"},
    {"spec.low_rank.value_output", "--value-output"},
    {"spec.low_rank.mlp", "--mlp"},
    {"spec.low_rank.activations", "--activations"},
    {"spec.low_rank.bias_update", "--bias-update"},
    {"spec.low_rank.literal_hessian", "--literal-hessian"},
    {"spec.low_rank", "--method low-rank's flags"},
    {"spec.method", "--method"},
    {"spec.factorization.preconditioner", "--preconditioner"},
    {"spec.factorization.damping", "--damping"},
    {"spec.factorization.alpha", "--alpha"},
    {"spec.factorization.allocation", "--allocation"},
    {"spec.factorization.latent", "--latent"},
    {"spec.factorization.sink_weight", "--sink-weight"},
    {"spec.factorization.rank_multiple", "--rank-multiple"},
    {"spec.factorization.anchored", "--anchored"},
    {"spec.factorization.rank_profile", "--rank-profile"},
    {"spec.calibration.corpora", "--calibration"},
    {"spec.calibration.sequences", "--calibration-sequences"},
    {"spec.calibration.sequence_length", "--sequence-length"},
    {"spec.calibration.seed", "--seed"},
    {"spec.calibration.labels", "--fisher-labels"},
    {"spec.evaluation.corpus.text_field", "--evaluate-text-field"},
    {"spec.evaluation.corpus", "--evaluate"},
    {"spec.evaluation.windows", "--evaluate-windows"},
    {"spec.evaluation.window_length", "--window-length"},
    {"spec.evaluation.quality_gate", "--quality-gate"},
    {"spec.healing.tokens", "--heal-tokens"},
    {"spec.healing.weights", "--heal-weights"},
    {"spec.healing.optimizer", "--heal-optimizer"},
    {"spec.healing.learning_rate", "--heal-learning-rate"},
    {"spec.healing.corpora", "--heal-text"},
    {"spec.dtype", "--dtype"},
    {"spec.device", "--device"},
    {"spec.threads", "--threads"},
    {"spec.deadline", "--deadline"},
    {"spec.priority", "--priority"},
    {"spec.worker_selector", "--worker-label"},
    {"spec.queue_deadline", "--queue-deadline"},
    {"spec.run_deadline", "--run-deadline"},
    {"spec.ttl", "--ttl"},
    {"labels", "--label"},
    {"filter.labels", "--label"},
    {"filter.states", "--state"},
    {"filter.tenant", "--tenant"},
    {"request_id", "--request-id"},
    {"page_token", "--page-token"},
    {"page_size", "--page-size"},
    {"from_sequence", "--from-sequence"},
    {"name", "JOB"},
    {"parent", "JOB"},
};

// "a.b" begins "a.b", "a.b.c" and "a.b[0].c", but not "a.bc".
bool Begins(absl::string_view prefix, absl::string_view field) {
  if (!absl::StartsWith(field, prefix)) return false;
  return field.size() == prefix.size() || field[prefix.size()] == '.' ||
         field[prefix.size()] == '[';
}

}  // namespace

std::string AdviceOn(absl::string_view reason) {
  for (const Row& row : kAdvice) {
    if (row.key == reason) return std::string(row.value);
  }
  return "";
}

std::string AdviceOn(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return "";  // what helps depends on the command
    case absl::StatusCode::kNotFound:
      return "look whether the file or name in the message is right";
    case absl::StatusCode::kAlreadyExists:
      return "choose another name, or remove what is there";
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return "get permission for what the message names";
    case absl::StatusCode::kResourceExhausted:
      return "free the resource that the message names";
    case absl::StatusCode::kUnimplemented:
      return "look whether --server names a latentforge-server of this version";
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return "repeat the command";
    default:
      return AdviceOn("INTERNAL");
  }
}

std::string FlagOfField(absl::string_view field) {
  for (const Row& row : kFlags) {
    if (!Begins(row.key, field)) continue;
    if (row.value == "--calibration" && absl::EndsWith(field, ".text_field")) {
      return "--calibration-text-field";
    }
    return std::string(row.value);
  }
  return std::string(absl::StripPrefix(field, "spec."));
}

std::string WithFlagNames(absl::string_view description) {
  const auto of_word = [](char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("_-./", c);
  };
  std::string text;
  while (!description.empty()) {
    const size_t end = static_cast<size_t>(
        std::find_if_not(description.begin(), description.end(), of_word) - description.begin());
    const absl::string_view word = description.substr(0, end);
    const auto named = [word](const Row& row) {
      return absl::StrContains(word, '_') && absl::EndsWith(row.key, absl::StrCat(".", word));
    };
    const auto* const row = std::find_if(std::begin(kFlags), std::end(kFlags), named);
    absl::StrAppend(&text, row == std::end(kFlags) ? word : row->value);
    if (end < description.size()) text += description[end];
    description.remove_prefix(std::min(end + 1, description.size()));
  }
  return text;
}

}  // namespace latentforge::client
