// What a study has measured: FOLDER/cells.jsonl, a line for each cell that has ended.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/json.h"
#include "client/study_grid.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::client {

// Names what a study's files hold, by URI: a text's SHA-256; of a model names, sizes and times of
// the files that make it.
using InputDigests = std::map<std::string, std::string>;

// Of model and texts of the specification. File errors.
absl::StatusOr<InputDigests> DigestInputs(const v1::JobSpec& spec);

// Names a cell by everything that defines its figures: program version, contents of model and
// texts, every setting; not by paths, output folder or threads. 32 hexadecimal digits.
std::string CellKey(const v1::JobSpec& spec, const InputDigests& inputs);

// A cell that has ended. Figures are NaN or 0 where it failed.
struct CellRecord {
  std::string key;
  std::string row;
  double ratio = 0;                // asked for
  Json settings = Json::object();  // of factorization and lowRank, as in a job file
  std::string reason;              // why it failed; empty: it did not
  std::string message;
  bool passing = false;  // what made it fail may pass: it is run again
  double perplexity_base = 0;
  double perplexity = 0;
  int64_t linear_parameters_base = 0;  // of the decoder's linear maps
  int64_t linear_parameters = 0;
  int64_t parameters_base = 0;  // of the whole model
  int64_t parameters = 0;
  int64_t macs_base = 0;  // of the linear maps, a token
  int64_t macs = 0;
  int64_t kv_bytes_base = 0;  // of a token
  int64_t kv_bytes = 0;
  int64_t calibration_tokens = 0;  // that this cell put through the model itself
  double seconds = 0;
  std::string artifact;  // its folder, where it is kept

  bool failed() const { return !reason.empty(); }
};

// Of a job that has ended, succeeded or failed. `report` is its report.json, or null. Figures
// that the report lacks stay 0.
CellRecord RecordOf(const StudyCell& cell, const std::string& key, const v1::Job& job,
                    const Json& report);

// A cell of the file; one line of it, without its end, and back. InvalidArgument names what is
// wrong.
Json CellJson(const CellRecord& record);
std::string CellLine(const CellRecord& record);
absl::StatusOr<CellRecord> ParseCell(absl::string_view line);

// The file. Not safe for concurrent use, also by processes.
class CellFile {
 public:
  // Reads it; empty where it is absent. A last line without an end, as a kill leaves it, is cut
  // off. InvalidArgument names the line that is no cell; file errors.
  static absl::StatusOr<CellFile> Open(const std::filesystem::path& path);

  // The cell's last record; null where it has not ended.
  const CellRecord* FindAny(const std::string& key) const;
  // The same, but null also where it failed for what may pass.
  const CellRecord* Find(const std::string& key) const;

  // Appends a line, synced to disk. File errors.
  absl::Status Add(const CellRecord& record);

 private:
  explicit CellFile(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;
  std::map<std::string, CellRecord> records_;
};

}  // namespace latentforge::client
