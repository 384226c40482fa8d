#include "client/study_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/gnuplot.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

const CellRecord* Find(const StudyResults& results, const std::string& row, double ratio) {
  const auto found =
      std::find_if(results.cells.begin(), results.cells.end(),
                   [&](const CellRecord& cell) { return cell.row == row && cell.ratio == ratio; });
  return found == results.cells.end() ? nullptr : &*found;
}

std::string Percent(double share) { return absl::StrFormat("%.6g %%", 100 * share); }

// Figures of failed methods have many digits, of which none counts.
std::string Figure(double value) {
  return value >= 1e5 ? absl::StrFormat("%.1e", value) : FormatFigure(value);
}

// Of the linear maps' parameters; the share asked for where the report does not say.
double Gone(const CellRecord& cell) {
  if (cell.linear_parameters_base <= 0) return cell.ratio;
  return 1 - static_cast<double>(cell.linear_parameters) /
                 static_cast<double>(cell.linear_parameters_base);
}

template <typename Value>
std::string Grid(const StudyResults& results, const std::string& title, const Value& value) {
  std::vector<std::string> header = {title};
  for (const double ratio : results.ratios) header.push_back(Percent(ratio));
  std::vector<std::vector<std::string>> lines;
  for (const std::string& row : results.rows) {
    std::vector<std::string>& line = lines.emplace_back(1, row);
    for (const double ratio : results.ratios) {
      const CellRecord* cell = Find(results, row, ratio);
      line.push_back(cell == nullptr ? "-" : cell->failed() ? "failed" : value(*cell));
    }
  }
  return FormatTable(header, lines);
}

// Of the original, by the cells; NaN where none has it.
double Original(const StudyResults& results) {
  for (const CellRecord& cell : results.cells) {
    if (!cell.failed()) return cell.perplexity_base;
  }
  return std::nan("");
}

std::string Quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

// A setting by its name in a job file; empty where it is that of proto3's zero.
std::string Setting(const CellRecord& cell, const char* message, const char* name) {
  if (!cell.settings.contains(message) || !cell.settings[message].contains(name)) return "";
  const Json& value = cell.settings[message][name];
  return value.is_string() ? value.get<std::string>() : WriteJson(value);
}

constexpr std::array<std::pair<const char*, const char*>, 10> kSettings = {
    {{"factorization", "preconditioner"},
     {"factorization", "allocation"},
     {"factorization", "damping"},
     {"factorization", "alpha"},
     {"lowRank", "layout"},
     {"lowRank", "queryKey"},
     {"lowRank", "valueOutput"},
     {"lowRank", "mlp"},
     {"lowRank", "biasUpdate"},
     {"lowRank", "activations"}}};

}  // namespace

std::string StudyTable(const StudyResults& results) {
  const std::string original = FormatFigure(Original(results));
  return absl::StrCat(Grid(results, absl::StrCat("perplexity (original ", original, ")"),
                           [](const CellRecord& cell) { return Figure(cell.perplexity); }),
                      "\n",
                      Grid(results, "parameters of linear maps gone", [](const CellRecord& cell) {
                        return absl::StrFormat("%.2f %%", 100 * Gone(cell));
                      }));
}

std::string StudyCsv(const StudyResults& results) {
  std::vector<std::string> header = {"row",
                                     "ratio",
                                     "reason",
                                     "perplexity_base",
                                     "perplexity",
                                     "linear_parameters_base",
                                     "linear_parameters",
                                     "parameters_base",
                                     "parameters",
                                     "macs_base",
                                     "macs",
                                     "kv_bytes_base",
                                     "kv_bytes",
                                     "calibration_tokens",
                                     "seconds"};
  for (const auto& [message, name] : kSettings) header.push_back(name);
  header.insert(header.end(), {"key", "message"});
  std::string csv = absl::StrCat(absl::StrJoin(header, ","), "\r\n");
  for (const CellRecord& cell : results.cells) {
    std::vector<std::string> fields = {Quoted(cell.row), absl::StrFormat("%.9g", cell.ratio),
                                       cell.reason};
    for (const double perplexity : {cell.perplexity_base, cell.perplexity}) {
      fields.push_back(cell.failed() ? "" : absl::StrFormat("%.9g", perplexity));
    }
    for (const int64_t count : {cell.linear_parameters_base, cell.linear_parameters,
                                cell.parameters_base, cell.parameters, cell.macs_base, cell.macs,
                                cell.kv_bytes_base, cell.kv_bytes, cell.calibration_tokens}) {
      fields.push_back(cell.failed() ? "" : absl::StrCat(count));
    }
    fields.push_back(cell.failed() ? "" : absl::StrFormat("%.3f", cell.seconds));
    for (const auto& [message, name] : kSettings) {
      fields.push_back(Quoted(Setting(cell, message, name)));
    }
    fields.insert(fields.end(), {cell.key, Quoted(cell.message)});
    absl::StrAppend(&csv, absl::StrJoin(fields, ","), "\r\n");
  }
  return csv;
}

Json StudyJson(const StudyResults& results) {
  Json cells = Json::array();
  for (const CellRecord& cell : results.cells) cells.push_back(CellJson(cell));
  return {{"rows", results.rows}, {"ratios", results.ratios}, {"cells", cells}};
}

std::string StudyPlot(const StudyResults& results) {
  constexpr std::array<const char*, 8> kColors = {"#bbbbbb", "#ccbb44", "#66ccee", "#228833",
                                                  "#aa3377", "#4477aa", "#cc3311", "#000000"};
  std::string data;
  std::vector<std::string> lines;
  for (size_t row = 0; row < results.rows.size(); ++row) {
    std::string points;
    for (const double ratio : results.ratios) {
      const CellRecord* cell = Find(results, results.rows[row], ratio);
      if (cell == nullptr || cell->failed()) continue;
      absl::StrAppendFormat(&points, "%.6g %.9g\n", 100 * Gone(*cell), cell->perplexity);
    }
    if (points.empty()) continue;
    absl::StrAppend(&data, "$row", row, " << EOD\n", points, "EOD\n");
    lines.push_back(absl::StrFormat(
        "$row%d with linespoints linewidth 2 pointtype 7 pointsize 0.6 linecolor '%s' title '%s'",
        row, kColors[row % kColors.size()],
        absl::StrReplaceAll(results.rows[row], {{"'", "''"}, {"_", "\\_"}})));
  }
  if (lines.empty()) return "";
  lines.push_back(absl::StrFormat("%.9g with lines dashtype 2 linecolor '#888888' title 'original'",
                                  Original(results)));
  return absl::StrCat(PlotHead("Perplexity of compressed linear maps"),
                      "set logscale y\n"
                      "set xlabel 'parameters of the linear maps that are gone, %'\n"
                      "set ylabel 'perplexity'\n",
                      data, "plot ", absl::StrJoin(lines, ", "), "\n");
}

}  // namespace latentforge::client
