#include "worker/export/report.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::exporter {
namespace {

// InvalidArgument names the path of the first number that JSON cannot hold.
absl::Status CheckFinite(const Json& value, const std::string& path) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    return absl::InvalidArgumentError(
        absl::StrCat("report: ", path, " is ", value.get<double>(), ", expected a finite number"));
  }
  if (value.is_structured()) {
    for (const auto& [key, member] : value.items()) {
      LF_RETURN_IF_ERROR(CheckFinite(member, path.empty() ? key : absl::StrCat(path, ".", key)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> PerplexityToJson(const Report& report) {
  if (report.perplexity_base.has_value() != report.perplexity_converted.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("report: perplexity.",
                     report.perplexity_base.has_value() ? "converted" : "base", " is missing"));
  }
  if (!report.perplexity_base.has_value()) return Json(nullptr);
  Json json = {{"base", *report.perplexity_base},
               {"converted", *report.perplexity_converted},
               {"ratio", *report.perplexity_converted / *report.perplexity_base}};
  if (report.perplexity_factorized) json["factorized"] = *report.perplexity_factorized;
  return json;
}

Json LayersToJson(const std::vector<ReportLayer>& layers) {
  Json array = Json::array();
  for (const ReportLayer& layer : layers) {
    Json entry = {{"layer", array.size()},
                  {"rank_k", layer.rank_k},
                  {"rank_v", layer.rank_v},
                  {"relative_error_k", layer.relative_error_k},
                  {"relative_error_v", layer.relative_error_v}};
    if (layer.rank_kv > 0) entry["rank_kv"] = layer.rank_kv;
    for (const ReportMap& map : layer.maps) {
      entry["maps"][map.name] = {{"rank", map.rank}, {"relative_error", map.relative_error}};
    }
    array.push_back(std::move(entry));
  }
  return array;
}

Json CostsToJson(const ReportCosts& costs) {
  const auto pair = [](auto base, auto converted) {
    return Json{{"base", base},
                {"converted", converted},
                {"ratio", static_cast<double>(converted) / static_cast<double>(base)}};
  };
  return {{"parameters", pair(costs.parameters_base, costs.parameters_converted)},
          {"macs_per_token", pair(costs.macs_base, costs.macs_converted)},
          {"context", costs.context},
          {"prefill_macs", pair(costs.prefill_macs_base, costs.prefill_macs_converted)},
          {"decode_macs", pair(costs.decode_macs_base, costs.decode_macs_converted)}};
}

// Shares of the largest point, which is the whole cache.
Json PredictionToJson(const ReportPrediction& prediction) {
  Json curve = Json::array();
  for (const ReportPrediction::Point& point : prediction.curve) {
    curve.push_back(
        {{"values_per_token", point.values_per_token},
         {"kv_ratio", static_cast<double>(point.values_per_token) /
                          static_cast<double>(prediction.curve.back().values_per_token)},
         {"loss", point.loss}});
  }
  Json measured = Json::array();
  for (const ReportPrediction::Measured& point : prediction.measured) {
    measured.push_back(
        {{"values_per_token", point.values_per_token},
         {"kv_ratio", static_cast<double>(point.values_per_token) /
                          static_cast<double>(prediction.curve.back().values_per_token)},
         {"loss", point.loss}});
  }
  return {
      {"loss", prediction.loss}, {"curve", std::move(curve)}, {"measured", std::move(measured)}};
}

Json HealingToJson(const ReportHealing& healing) {
  Json history = Json::array();
  for (const ReportHealing::Step& step : healing.history) {
    history.push_back({{"step", step.step},
                       {"loss", step.loss},
                       {"learning_rate", step.learning_rate},
                       {"gradient_norm", step.gradient_norm}});
  }
  Json measurements = Json::array();
  for (const ReportHealing::Measurement& measured : healing.measurements) {
    measurements.push_back({{"step", measured.step},
                            {"divergence", measured.divergence},
                            {"perplexity", measured.perplexity}});
  }
  return {{"weights", healing.weights},
          {"tokens", healing.tokens},
          {"steps", healing.steps},
          {"steps_planned", healing.steps_planned},
          {"best_step", healing.best_step},
          {"ended_early", healing.ended_early},
          {"sequences_held_back", healing.sequences_held_back},
          {"history", std::move(history)},
          {"measurements", std::move(measurements)}};
}

Json CalibrationToJson(const ReportCalibration& calibration) {
  Json corpora = Json::array();
  for (const ReportCorpus& corpus : calibration.corpora) {
    corpora.push_back({{"uri", corpus.uri},
                       {"sha256", corpus.sha256},
                       {"weight", corpus.weight},
                       {"tokens", corpus.tokens}});
  }
  return {{"corpora", corpora},
          {"sequences", calibration.sequences},
          {"sequence_length", calibration.sequence_length},
          {"seed", calibration.seed}};
}

Json PhasesToJson(const std::vector<ReportPhase>& phases) {
  Json array = Json::array();
  for (const ReportPhase& phase : phases) {
    array.push_back({{"name", phase.name},
                     {"seconds", phase.seconds},
                     {"tokens_per_second", phase.tokens_per_second}});
  }
  return array;
}

}  // namespace

absl::StatusOr<Json> ReportToJson(const Report& report) {
  if (report.kv_bytes_per_token_base <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("report: kv_cache.bytes_per_token.base is ",
                                                   report.kv_bytes_per_token_base,
                                                   ", expected a positive number"));
  }
  LF_ASSIGN_OR_RETURN(Json perplexity, PerplexityToJson(report));
  const double ratio = static_cast<double>(report.kv_bytes_per_token_converted) /
                       static_cast<double>(report.kv_bytes_per_token_base);
  const Json source = {{"uri", report.source.uri},
                       {"digest", report.source.digest},
                       {"model_type", report.source.model_type},
                       {"parameters", report.source.parameters}};
  const Json evaluation = {{"text", report.evaluation.text},
                           {"windows", report.evaluation.windows},
                           {"window_length", report.evaluation.window_length},
                           {"dtype", report.evaluation.dtype}};
  Json json = {{"schema_version", kReportSchemaVersion},
               {"perplexity", std::move(perplexity)},
               {"kv_cache",
                {{"bytes_per_token",
                  {{"base", report.kv_bytes_per_token_base},
                   {"converted", report.kv_bytes_per_token_converted}}},
                 {"ratio", ratio}}},
               {"layers", LayersToJson(report.layers)},
               {"phases", PhasesToJson(report.phases)},
               {"peak_rss_bytes", report.peak_rss_bytes},
               {"parameters", {{"converted", report.parameters_converted}}},
               {"settings", report.settings},
               {"source", source},
               {"evaluation", evaluation},
               {"calibration", CalibrationToJson(report.calibration)},
               {"versions", report.versions},
               {"warnings", report.warnings}};
  if (report.prediction) json["prediction"] = PredictionToJson(*report.prediction);
  if (report.costs) json["linear_maps"] = CostsToJson(*report.costs);
  if (report.healing) json["healing"] = HealingToJson(*report.healing);
  json["parameters"]["base"] = report.source.parameters;
  LF_RETURN_IF_ERROR(CheckFinite(json, ""));
  return json;
}

}  // namespace latentforge::exporter
