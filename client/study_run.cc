#include "client/study_run.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/gnuplot.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "client/disk_guard.h"
#include "client/error.h"
#include "client/interrupt.h"
#include "client/job_tracker.h"
#include "client/leftover.h"
#include "client/local_device.h"
#include "client/output.h"
#include "client/output_lock.h"
#include "client/private_session.h"
#include "client/progress_view.h"
#include "client/result_table.h"
#include "client/state_folder.h"
#include "client/study_cells.h"
#include "client/study_report.h"
#include "client/study_view.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxReportBytes = int64_t{64} << 20;
constexpr char kSpecLabel[] = "study-spec";  // of jobs: SpecDigest

enum class StudyFormat { kTable, kJson, kJsonLines, kCsv };

absl::StatusOr<StudyFormat> ParseFormat(const std::string& text) {
  if (text == "table") return StudyFormat::kTable;
  if (text == "json") return StudyFormat::kJson;
  if (text == "jsonl") return StudyFormat::kJsonLines;
  if (text == "csv") return StudyFormat::kCsv;
  return absl::InvalidArgumentError(
      absl::StrCat("-o is \"", text, "\", expected table, json, jsonl or csv"));
}

// A grid, and where it is measured.
struct Study {
  StudyGrid grid;
  std::vector<std::string> keys;  // of the grid's cells
  fs::path folder;

  fs::path ArtifactOf(size_t cell) const { return folder / "cells" / keys[cell]; }
  fs::path ReportOf(size_t cell) const {
    return folder / "reports" / absl::StrCat(keys[cell], ".json");
  }
};

absl::StatusOr<fs::path> FolderOf(const StudyOptions& options, const CommandContext& context) {
  if (!options.out.has_value() || options.out->empty()) {
    return absl::InvalidArgumentError("--out is missing: name the folder of the study");
  }
  const fs::path folder = (context.files.current_folder / *options.out).lexically_normal();
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_directory(folder, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("--out is ", folder.string(), ", which is a file, expected a folder"));
  }
  return folder;
}

absl::StatusOr<Study> Plan(const StudyOptions& options, const CommandContext& context) {
  Study study;
  LF_ASSIGN_OR_RETURN(study.folder, FolderOf(options, context));
  LF_ASSIGN_OR_RETURN(study.grid, BuildGrid(options.flags, context.files));
  const v1::JobSpec& any = study.grid.cells[0].spec;
  const absl::Status inputs = CheckLocalInputs({.spec = any, .labels = {}}, context.files);
  LF_RETURN_IF_ERROR(WithReason(inputs, absl::StartsWith(inputs.message(), "MODEL")
                                            ? "SOURCE_NOT_READABLE"
                                            : "CORPUS_NOT_READABLE"));
  LF_RETURN_IF_ERROR(CheckLocalDevice(any.device()));
  LF_ASSIGN_OR_RETURN(const InputDigests digests, DigestInputs(any));
  for (const StudyCell& cell : study.grid.cells) {
    study.keys.push_back(CellKey(cell.spec, digests));
  }
  return study;
}

// What has ended, in the order of the table.
StudyResults ResultsOf(const Study& study, const CellFile& file) {
  StudyResults results{.rows = study.grid.rows, .ratios = study.grid.ratios, .cells = {}};
  for (const std::string& row : study.grid.rows) {
    for (size_t i = 0; i < study.keys.size(); ++i) {
      const StudyCell& cell = study.grid.cells[i];
      const CellRecord* record = cell.row == row ? file.FindAny(study.keys[i]) : nullptr;
      if (record == nullptr) continue;
      results.cells.push_back(*record);
      results.cells.back().row = row;
    }
  }
  return results;
}

// study.csv and study.svg, of what there is.
absl::Status WriteFiles(const Study& study, const StudyResults& results,
                        const CommandContext& context) {
  LF_RETURN_IF_ERROR(WriteFileAtomic(study.folder / "study.csv", StudyCsv(results)));
  const std::string script = StudyPlot(results);
  if (script.empty()) return absl::OkStatus();
  const absl::StatusOr<std::string> svg =
      RunGnuplot({.scratch = study.folder}, script, context.clock);
  if (svg.ok()) return WriteFileAtomic(study.folder / "study.svg", *svg);
  context.terminal.Write(absl::StrCat(
      "study.svg was not drawn: ", svg.status().message(),
      absl::IsNotFound(svg.status()) ? "; it is in the package gnuplot-nox" : "", "\n"));
  return absl::OkStatus();
}

absl::Status Print(const StudyResults& results, StudyFormat format, const Study& study) {
  switch (format) {
    case StudyFormat::kCsv:
      return PrintOutput(StudyCsv(results));
    case StudyFormat::kJson:
    case StudyFormat::kJsonLines:
      return PrintOutput(
          absl::StrCat(WriteJson(StudyJson(results), format == StudyFormat::kJson ? 2 : -1), "\n"));
    default:
      return PrintOutput(
          absl::StrCat(StudyTable(results), "\nfiles: ", Printable(study.folder.string()), "\n"));
  }
}

// The cells that have not ended, one after the other. Borrows everything.
class Runner {
 public:
  Runner(const Study& study, CellFile& file, bool keep, const CommandContext& context)
      : study_(study), file_(file), keep_(keep), context_(context) {}

  // Every cell is checked by the server before one runs, and before anything of an earlier run is
  // given up.
  absl::Status Run(const std::vector<size_t>& cells, PrivateSession& session) {
    for (const size_t cell : cells) {
      const absl::Status valid = session.Validate(DraftOf(cell));
      // Its own artifact, which a kill left: running it finds that.
      if (ReasonOf(valid) == "OUTPUT_NOT_EMPTY") continue;
      LF_RETURN_IF_ERROR(Annotate(valid, PlaceOf(cell)));
    }
    LF_RETURN_IF_ERROR(TakeOver(cells, session));
    for (size_t i = 0; i < cells.size(); ++i) {
      if (Interrupted()) return absl::CancelledError("interrupted");
      const absl::Duration begin = context_.clock.Monotonic();
      LF_RETURN_IF_ERROR(RunCell(cells[i], cells.size() - i, session));
      seconds_.push_back(absl::ToDoubleSeconds(context_.clock.Monotonic() - begin));
    }
    return absl::OkStatus();
  }

  // What lies in the work folder after Run, or an attempt at it, ended so.
  Leftover LeftAfter(const absl::Status& ended, bool existed) const {
    const bool done = unfinished_.empty() && !passing_;
    if (!took_over_) return LeftBy(ended, done, existed);
    if (absl::IsCancelled(ended)) return LeftBy(absl::OkStatus(), done, existed);
    return ended.ok() && done ? Leftover::kNothing : Leftover::kUnfinished;
  }

 private:
  // The label tells jobs of cells as they are asked for now from others that have their folders.
  JobDraft DraftOf(size_t cell) const {
    JobDraft draft{.spec = study_.grid.cells[cell].spec, .labels = {}};
    draft.spec.mutable_output()->set_uri(UriFromPath(study_.ArtifactOf(cell)));
    draft.labels[kSpecLabel] = SpecDigest(draft.spec);
    return draft;
  }

  // Of what a kill left, only jobs of these cells with these very settings go on: others, as of
  // another number of threads, end, and artifacts that no job of these explains go.
  absl::Status TakeOver(const std::vector<size_t>& cells, PrivateSession& session) {
    std::set<std::string> wanted;
    for (const size_t cell : cells) wanted.insert(DraftOf(cell).labels[kSpecLabel]);
    std::set<std::string> owned;  // labels of jobs that stay of use
    LF_ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs, session.Jobs());
    for (const v1::Job& job : jobs) {
      const auto label = job.labels().find(kSpecLabel);
      const bool known = label != job.labels().end() && wanted.count(label->second) != 0;
      const v1::JobState state = job.status().state();
      if (!known && !IsTerminal(state)) LF_RETURN_IF_ERROR(session.Cancel(job));
      if (!known || (IsTerminal(state) && state != v1::JOB_STATE_SUCCEEDED)) continue;
      owned.insert(label->second);
      if (!IsTerminal(state)) unfinished_.insert(job.name());
    }
    for (const size_t cell : cells) {
      if (owned.count(DraftOf(cell).labels[kSpecLabel]) != 0) continue;
      LF_RETURN_IF_ERROR(RemoveTree(study_.ArtifactOf(cell)));
    }
    took_over_ = true;
    return absl::OkStatus();
  }

  // "RootCov at 20 %".
  std::string PlaceOf(size_t cell) const {
    const StudyCell& that = study_.grid.cells[cell];
    return absl::StrFormat("%s at %g %%", that.row, 100 * that.ratio);
  }

  absl::Status RunCell(size_t cell, size_t left, PrivateSession& session) {
    const size_t all = study_.grid.cells.size();
    std::string place = absl::StrCat("cell ", all - left + 1, " of ", all, ", ", PlaceOf(cell));
    if (const double seconds = SecondsLeft(seconds_, left); seconds >= 0) {
      absl::StrAppend(&place, ", ", FormatSeconds(seconds), " left in all");
    }
    const std::unique_ptr<ProgressView> view = MakeProgressView(context_.terminal, context_.clock);
    StudyView placed(*view, place);
    const JobDraft draft = DraftOf(cell);
    LF_ASSIGN_OR_RETURN(const v1::Job job, session.Run(draft, draft.labels.at(kSpecLabel), placed));
    unfinished_.erase(job.name());
    if (job.status().state() == v1::JOB_STATE_CANCELLED) return absl::CancelledError("interrupted");
    LF_ASSIGN_OR_RETURN(const Json report, ReportOf(cell, job));
    CellRecord record = RecordOf(study_.grid.cells[cell], study_.keys[cell], job, report);
    passing_ |= record.passing;
    if (keep_ && !record.failed()) record.artifact = study_.ArtifactOf(cell).string();
    // First the record: a cell whose artifact has gone without one would run again.
    LF_RETURN_IF_ERROR(file_.Add(record));
    if (!keep_) LF_RETURN_IF_ERROR(RemoveTree(study_.ArtifactOf(cell)));
    Tell(place, record);
    return absl::OkStatus();
  }

  // Of a job that succeeded, kept beside the others; null of another.
  absl::StatusOr<Json> ReportOf(size_t cell, const v1::Job& job) const {
    if (job.status().state() != v1::JOB_STATE_SUCCEEDED) return Json();
    LF_ASSIGN_OR_RETURN(const fs::path path, PathFromUri(job.status().result().report_uri()));
    LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxReportBytes));
    LF_RETURN_IF_ERROR(WriteFileAtomic(study_.ReportOf(cell), text));
    return ParseJson(text);
  }

  void Tell(const std::string& place, const CellRecord& record) const {
    const std::string outcome =
        record.failed()
            ? absl::StrCat("failed: ", Printable(record.message), " [", record.reason, "]")
            : absl::StrCat("perplexity ", FormatFigure(record.perplexity), " (original ",
                           FormatFigure(record.perplexity_base), ")");
    context_.terminal.Write(absl::StrCat(place, ": ", outcome, "\n"));
  }

  const Study& study_;
  CellFile& file_;
  const bool keep_;
  const CommandContext& context_;
  std::vector<double> seconds_;       // of the cells that this run has ended
  bool took_over_ = false;            // what the work folder held is known
  std::set<std::string> unfinished_;  // jobs of an earlier run that have not ended
  bool passing_ = false;              // a failed cell has work that its next run goes on with
};

// A private service of its own for the cells that are left.
absl::Status RunMissing(const std::vector<size_t>& missing, Runner& runner, const Study& study,
                        const StudyOptions& options, const CommandContext& context) {
  if (missing.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const PrivateServiceOptions programs, FindServicePrograms());
  if (options.work_dir.has_value() && options.work_dir->empty()) {
    return absl::InvalidArgumentError("--work-dir is empty");
  }
  const fs::path root = options.work_dir.has_value()
                            ? (context.files.current_folder / *options.work_dir).lexically_normal()
                            : DefaultStateRoot(context.environment);
  LF_ASSIGN_OR_RETURN(
      StateFolder folder,
      StateFolder::Open(root,
                        Sha256Hex(absl::StrCat("study ", study.folder.string())).substr(0, 32)));
  LF_RETURN_IF_ERROR(CheckNotFull(folder.path(), FreeBytes));
  if (!folder.existed()) {
    // No job of this service's: nobody would know what they are.
    for (const size_t cell : missing) LF_RETURN_IF_ERROR(RemoveTree(study.ArtifactOf(cell)));
  }
  const absl::Status ended = [&]() -> absl::Status {
    LF_ASSIGN_OR_RETURN(const std::unique_ptr<PrivateSession> session,
                        PrivateSession::Start(folder, programs, context.clock));
    const absl::Status run = runner.Run(missing, *session);
    session->Stop();
    return run;
  }();
  LF_RETURN_IF_ERROR(CloseWork(folder, runner.LeftAfter(ended, folder.existed()), /*keep=*/false,
                               context.terminal));
  return ended;
}

// How many of the study's cells have no record, after an interruption.
absl::Status Interruption(const Study& study, const CellFile& file) {
  size_t done = 0;
  for (const std::string& key : study.keys) done += file.Find(key) != nullptr;
  return WithNextStep(WithExitCode(absl::CancelledError(absl::StrCat(
                                       "interrupted; ", done, " of ", study.keys.size(),
                                       " cells are in ", (study.folder / "cells.jsonl").string())),
                                   kExitInterrupted),
                      "the same command goes on behind them");
}

absl::Status Outcome(const StudyResults& results) {
  const auto failed = std::count_if(results.cells.begin(), results.cells.end(),
                                    [](const CellRecord& cell) { return cell.failed(); });
  if (failed == 0) return absl::OkStatus();
  const CellRecord& first = *std::find_if(results.cells.begin(), results.cells.end(),
                                          [](const CellRecord& cell) { return cell.failed(); });
  return WithExitCode(
      WithReason(
          absl::InternalError(absl::StrCat(
              failed, " of ", results.cells.size(), " cells failed; the first, ", first.row, " at ",
              absl::StrFormat("%g %%", 100 * first.ratio), ": ", Printable(first.message))),
          first.reason),
      kExitJobFailed);
}

}  // namespace

absl::Status RunStudy(const StudyOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const StudyFormat format, ParseFormat(options.output));
  LF_ASSIGN_OR_RETURN(const Study study, Plan(options, context));
  for (const char* name : {"cells", "reports"}) {
    LF_RETURN_IF_ERROR(Annotate(CreateDirectories(study.folder / name), "--out"));
  }
  LF_ASSIGN_OR_RETURN(const OutputLock lock,
                      OutputLock::Acquire(study.folder, UriFromPath(study.folder)));
  LF_ASSIGN_OR_RETURN(CellFile file, CellFile::Open(study.folder / "cells.jsonl"));
  std::vector<size_t> missing;
  for (size_t i = 0; i < study.keys.size(); ++i) {
    const CellRecord* record = file.Find(study.keys[i]);
    if (record == nullptr) missing.push_back(i);
    // A kill may have come between the two.
    if (record != nullptr && record->artifact.empty()) {
      LF_RETURN_IF_ERROR(RemoveTree(study.ArtifactOf(i)));
    }
  }
  context.terminal.Write(absl::StrCat(study.keys.size(), " cells, ",
                                      study.keys.size() - missing.size(), " of them measured\n"));
  Runner runner(study, file, options.keep, context);
  const absl::Status ran = RunMissing(missing, runner, study, options, context);
  const StudyResults results = ResultsOf(study, file);
  const absl::Status written = WriteFiles(study, results, context);
  if (absl::IsCancelled(ran) && Interrupted()) return Interruption(study, file);
  LF_RETURN_IF_ERROR(ran);
  LF_RETURN_IF_ERROR(written);
  LF_RETURN_IF_ERROR(Print(results, format, study));
  return Outcome(results);
}

}  // namespace latentforge::client
