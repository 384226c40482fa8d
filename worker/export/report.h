// report.json: what a conversion cost and what it achieved. docs/report.md
// describes every key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"

namespace latentforge::exporter {

inline constexpr int kReportSchemaVersion = 1;

// One linear map of the method low_rank.
struct ReportMap {
  std::string name;           // "q", "k", "v", "o", "gate", "up", "down"
  int64_t rank = 0;           // 0: dense
  double relative_error = 0;  // as of ReportLayer; of q and k compressed jointly that of scores
};

// One layer's ranks and calibration errors. relative_error is
// ||(W - W')X||_F / ||WX||_F over the calibration inputs, 0 for a dense projection.
// A joint latent has rank_kv and the errors of the two halves.
struct ReportLayer {
  int64_t rank_k = 0;  // separate latents; joint: 0
  int64_t rank_v = 0;
  int64_t rank_kv = 0;  // joint latent; separate: 0
  double relative_error_k = 0;
  double relative_error_v = 0;
  std::vector<ReportMap> maps;  // of the method low_rank; else empty
};

// What the linear maps of the decoder cost, before and after.
struct ReportCosts {
  int64_t parameters_base = 0;
  int64_t parameters_converted = 0;
  // Multiplications with additions a token: of the linear maps, and with attention at `context`.
  int64_t macs_base = 0;
  int64_t macs_converted = 0;
  int64_t context = 0;
  double prefill_macs_base = 0;
  double prefill_macs_converted = 0;
  double decode_macs_base = 0;
  double decode_macs_converted = 0;
};

// Wall time of one phase over all attempts of the job.
struct ReportPhase {
  std::string name;  // "fetching", "calibrating", "factorizing", …
  double seconds = 0;
  double tokens_per_second = 0;  // 0 where a phase processes no tokens
};

struct ReportCorpus {
  std::string uri;
  std::string sha256;
  double weight = 1;
  int64_t tokens = 0;
};

struct ReportSource {
  std::string uri;
  std::string digest;  // SHA-256 that names the source's content
  std::string model_type;
  int64_t parameters = 0;
};

struct ReportEvaluation {
  std::string text;  // URI, or "held back from URI"
  int windows = 0;
  int window_length = 0;
  std::string dtype;
};

struct ReportCalibration {
  std::vector<ReportCorpus> corpora;
  int sequences = 0;
  int sequence_length = 0;
  uint64_t seed = 0;
};

// What the second-order expansion of the loss promises; docs/report.md.
struct ReportPrediction {
  struct Point {
    int64_t values_per_token = 0;  // cached, over all layers
    double loss = 0;               // nats a token
  };
  struct Measured {
    int64_t values_per_token = 0;
    double loss = 0;  // log of the perplexity ratio on the evaluation text, nats a token
  };
  double loss = 0;  // of the ranks chosen
  std::vector<Point> curve;
  std::vector<Measured> measured;  // without healing
};

// How healing went; docs/report.md.
struct ReportHealing {
  struct Step {
    int64_t step = 0;
    double loss = 0;  // nats a token
    double learning_rate = 0;
    double gradient_norm = 0;
  };
  struct Measurement {
    int64_t step = 0;
    double divergence = 0;  // nats a token
    double perplexity = 0;
  };
  std::string weights;  // "latents", or "attention" with the query and output projections
  int64_t tokens = 0;
  int64_t steps = 0;
  int64_t steps_planned = 0;
  int64_t best_step = 0;
  std::string ended_early;  // why; empty when all steps were made
  int64_t sequences_held_back = 0;
  std::vector<Step> history;
  std::vector<Measurement> measurements;
};

struct Report {
  std::optional<double> perplexity_base;        // absent: no evaluation was made
  std::optional<double> perplexity_factorized;  // before healing; absent without
  std::optional<double> perplexity_converted;
  int64_t kv_bytes_per_token_base = 0;  // over all layers
  int64_t kv_bytes_per_token_converted = 0;
  std::vector<ReportLayer> layers;
  std::optional<ReportPrediction> prediction;  // absent: the method predicts nothing
  std::optional<ReportHealing> healing;        // absent: none was asked for
  std::vector<ReportPhase> phases;
  int64_t peak_rss_bytes = 0;
  int64_t parameters_converted = 0;
  std::optional<ReportCosts> costs;  // of the method low_rank
  Json settings = Json::object();    // the resolved job specification
  ReportSource source;
  ReportEvaluation evaluation;
  ReportCalibration calibration;
  Json versions = Json::object();  // latentforge, libtorch, ...
  std::vector<std::string> warnings;
};

// The report as JSON with schema_version. InvalidArgument names the key of a
// number that is not finite, or a missing perplexity of a pair.
absl::StatusOr<Json> ReportToJson(const Report& report);

}  // namespace latentforge::exporter
