#include "client/study_cells.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <iterator>
#include <system_error>
#include <type_traits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "base/version.h"
#include "client/result_table.h"
#include "client/state_folder.h"
#include "google/protobuf/util/json_util.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxCellFileBytes = int64_t{64} << 20;
// Every program that reads JSON keeps integers up to this one.
constexpr int64_t kMaxInteger = int64_t{1} << 53;

// Why a job fails that the same model, texts and settings would fail for again, besides MALFORMED_
// of whatever they hold. All others may pass: a file that was away, a full disk, a deadline.
constexpr absl::string_view kLastingReasons[] = {
    "ALREADY_CONVERTED", "INVALID_SPEC",   "METHOD_NOT_SUPPORTED", "NUMERICAL_FAILURE",
    "RANK_OUT_OF_RANGE", "SOURCE_CORRUPT", "TOO_FEW_TOKENS",       "UNSUPPORTED_ARCHITECTURE",
};

bool MayPass(absl::string_view reason) {
  return !absl::StartsWith(reason, "MALFORMED_") &&
         std::find(std::begin(kLastingReasons), std::end(kLastingReasons), reason) ==
             std::end(kLastingReasons);
}

// Files that define a checkpoint, by name.
bool DefinesModel(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") || absl::EndsWith(name, ".index.json") ||
         name == "config.json" || name == "tokenizer.json";
}

absl::StatusOr<std::string> StampOf(const fs::path& model) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(model));
  std::string stamp;
  for (const std::string& name : names) {
    if (!DefinesModel(name)) continue;
    std::error_code error;
    const uintmax_t bytes = fs::file_size(model / name, error);
    if (error) return ErrnoStatus(error.value(), "look at", model / name);
    const auto time = fs::last_write_time(model / name, error).time_since_epoch().count();
    absl::StrAppend(&stamp, name, " ", bytes, " ", time, "\n");
  }
  return Sha256Hex(stamp);
}

// Members of a record in the file, by name.
template <typename Record, typename F>
void EachNumber(Record& record, const F& f) {
  f("ratio", record.ratio);
  f("perplexity_base", record.perplexity_base);
  f("perplexity", record.perplexity);
  f("linear_parameters_base", record.linear_parameters_base);
  f("linear_parameters", record.linear_parameters);
  f("parameters_base", record.parameters_base);
  f("parameters", record.parameters);
  f("macs_base", record.macs_base);
  f("macs", record.macs);
  f("kv_bytes_base", record.kv_bytes_base);
  f("kv_bytes", record.kv_bytes);
  f("calibration_tokens", record.calibration_tokens);
  f("seconds", record.seconds);
}

template <typename Record, typename F>
void EachText(Record& record, const F& f) {
  f("key", record.key);
  f("row", record.row);
  f("reason", record.reason);
  f("message", record.message);
  f("artifact", record.artifact);
}

Json SettingsOf(const v1::JobSpec& spec) {
  v1::JobSpec settings;
  *settings.mutable_factorization() = spec.factorization();
  *settings.mutable_low_rank() = spec.low_rank();
  std::string text;
  // A message of enums and numbers always has a JSON form.
  if (!google::protobuf::util::MessageToJsonString(settings, &text).ok()) return Json::object();
  return ParseJson(text).value_or(Json::object());
}

int64_t IntAt(const Json& report, const char* pointer) {
  const Json::json_pointer at(pointer);
  if (!report.contains(at)) return 0;
  const Json& value = report[at];
  return value.is_number() ? static_cast<int64_t>(std::llround(value.get<double>())) : 0;
}

}  // namespace

absl::StatusOr<InputDigests> DigestInputs(const v1::JobSpec& spec) {
  InputDigests digests;
  LF_ASSIGN_OR_RETURN(const fs::path model, PathFromUri(spec.source().uri()));
  LF_ASSIGN_OR_RETURN(digests[spec.source().uri()], StampOf(model));
  std::vector<std::string> texts = {spec.evaluation().corpus().uri()};
  for (const v1::CorpusSpec& corpus : spec.calibration().corpora()) texts.push_back(corpus.uri());
  for (const std::string& uri : texts) {
    LF_ASSIGN_OR_RETURN(const fs::path path, PathFromUri(uri));
    LF_ASSIGN_OR_RETURN(digests[uri], Sha256File(path));
  }
  return digests;
}

std::string CellKey(const v1::JobSpec& spec, const InputDigests& inputs) {
  const auto digest = [&](const std::string& uri) {
    const auto found = inputs.find(uri);
    return found == inputs.end() ? uri : found->second;
  };
  v1::JobSpec named = spec;
  named.mutable_source()->set_uri(absl::StrCat(kVersion, " ", digest(spec.source().uri())));
  named.mutable_output()->clear_uri();
  named.clear_threads();
  named.clear_deadline();
  for (v1::CorpusSpec& corpus : *named.mutable_calibration()->mutable_corpora()) {
    corpus.set_uri(digest(corpus.uri()));
  }
  v1::CorpusSpec& measured = *named.mutable_evaluation()->mutable_corpus();
  measured.set_uri(digest(measured.uri()));
  return SpecDigest(named);
}

CellRecord RecordOf(const StudyCell& cell, const std::string& key, const v1::Job& job,
                    const Json& report) {
  const v1::JobStatus& status = job.status();
  CellRecord record{
      .key = key, .row = cell.row, .ratio = cell.ratio, .settings = SettingsOf(cell.spec)};
  if (status.state() != v1::JOB_STATE_SUCCEEDED) {
    const v1::ConversionError& error = status.error();
    record.reason = error.reason().empty() ? "INTERNAL" : error.reason();
    record.message = error.message();
    record.passing = MayPass(record.reason);
    return record;
  }
  const v1::ConversionResult& result = status.result();
  record.perplexity_base = result.perplexity_base();
  record.perplexity = result.perplexity_converted();
  record.kv_bytes_base = result.kv_bytes_per_token_base();
  record.kv_bytes = result.kv_bytes_per_token_converted();
  record.linear_parameters_base = IntAt(report, "/linear_maps/parameters/base");
  record.linear_parameters = IntAt(report, "/linear_maps/parameters/converted");
  record.macs_base = IntAt(report, "/linear_maps/macs_per_token/base");
  record.macs = IntAt(report, "/linear_maps/macs_per_token/converted");
  record.parameters_base = IntAt(report, "/parameters/base");
  record.parameters = IntAt(report, "/parameters/converted");
  for (const v1::PhaseTiming& phase : result.phases()) {
    record.seconds += phase.seconds();
    if (phase.phase() != v1::PHASE_CALIBRATING) continue;
    record.calibration_tokens = std::llround(phase.seconds() * phase.tokens_per_second());
  }
  return record;
}

Json CellJson(const CellRecord& record) {
  Json json = {{"settings", record.settings}, {"passing", record.passing}};
  EachText(record, [&](const char* name, const std::string& text) {
    if (!text.empty()) json[name] = text;
  });
  EachNumber(record, [&](const char* name, auto value) {
    if (value != 0) json[name] = value;
  });
  return json;
}

std::string CellLine(const CellRecord& record) { return WriteJson(CellJson(record)); }

absl::StatusOr<CellRecord> ParseCell(absl::string_view line) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(line));
  LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(json, "a cell"));
  CellRecord record;
  absl::Status wrong;
  EachText(record, [&](const char* name, std::string& text) {
    absl::StatusOr<std::string> value = object.StringOr(name, "");
    if (value.ok()) text = *std::move(value);
    wrong.Update(value.status());
  });
  EachNumber(record, [&](const char* name, auto& number) {
    const auto take = [&](const auto& value) {
      if (value.ok()) number = *value;
      wrong.Update(value.status());
    };
    if constexpr (std::is_integral_v<std::decay_t<decltype(number)>>) {
      take(object.IntOr(name, 0, kMaxInteger, 0));
    } else {
      take(object.NumberOr(name, 0));
    }
  });
  const absl::StatusOr<bool> passing = object.BoolOr("passing", false);
  record.passing = passing.value_or(false);
  wrong.Update(passing.status());
  LF_RETURN_IF_ERROR(wrong);
  if (json.contains("settings")) record.settings = json["settings"];
  const bool measured = record.perplexity > 0 && record.perplexity_base > 0;
  if (record.key.empty() || record.row.empty() || measured == record.failed()) {
    return absl::InvalidArgumentError(
        "a cell has no key, no row, or neither perplexities nor a reason, expected all of them");
  }
  return record;
}

absl::StatusOr<CellFile> CellFile::Open(const fs::path& path) {
  CellFile file(path);
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxCellFileBytes);
  if (absl::IsNotFound(text.status())) return file;
  LF_RETURN_IF_ERROR(text.status());
  const size_t whole = text->rfind('\n') == std::string::npos ? 0 : text->rfind('\n') + 1;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text->substr(0, whole), '\n')) {
    ++number;
    if (line.empty()) continue;
    absl::StatusOr<CellRecord> record = ParseCell(line);
    if (!record.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ":", number, ": ", record.status().message()));
    }
    file.records_[record->key] = *std::move(record);
  }
  if (whole < text->size()) LF_RETURN_IF_ERROR(WriteFileAtomic(path, text->substr(0, whole)));
  return file;
}

const CellRecord* CellFile::FindAny(const std::string& key) const {
  const auto found = records_.find(key);
  return found == records_.end() ? nullptr : &found->second;
}

const CellRecord* CellFile::Find(const std::string& key) const {
  const CellRecord* record = FindAny(key);
  return record == nullptr || record->passing ? nullptr : record;
}

absl::Status CellFile::Add(const CellRecord& record) {
  const std::string line = absl::StrCat(CellLine(record), "\n");
  const UniqueFd file(open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!file.valid()) return ErrnoStatus(errno, "open", path_);
  const ssize_t written = write(file.get(), line.data(), line.size());
  if (written < 0) return ErrnoStatus(errno, "write", path_);
  if (static_cast<size_t>(written) != line.size()) return ErrnoStatus(ENOSPC, "write", path_);
  if (fsync(file.get()) != 0) return ErrnoStatus(errno, "sync", path_);
  records_[record.key] = record;
  return absl::OkStatus();
}

}  // namespace latentforge::client
