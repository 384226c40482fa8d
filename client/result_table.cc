#include "client/result_table.h"

#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "client/progress_text.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

std::string Ratio(double after, double before) {
  return before > 0 ? absl::StrFormat("%.3f", after / before) : "-";
}

std::string Share(int64_t after, int64_t before) {
  if (before <= 0) return "-";
  return absl::StrFormat("%.1f %%",
                         100.0 * static_cast<double>(after) / static_cast<double>(before));
}

// The text on which perplexity was measured; empty when the specification names none.
std::string EvaluationText(const v1::JobSpec& spec) {
  if (const std::string& uri = spec.evaluation().corpus().uri(); !uri.empty()) return PathText(uri);
  if (spec.calibration().corpora().empty()) return "";
  return absl::StrCat("the end of ", PathText(spec.calibration().corpora(0).uri()),
                      ", held back from calibration");
}

}  // namespace

std::string PathText(const std::string& uri) {
  const absl::StatusOr<std::filesystem::path> path = PathFromUri(uri);
  return Printable(path.ok() ? path->string() : uri);
}

std::string ShellWord(const std::string& text) {
  const std::string plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!text.empty() && text.find_first_not_of(plain) == std::string::npos) return text;
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::string ResultTable(const v1::ConversionResult& result, const v1::JobSpec& spec) {
  std::vector<std::vector<std::string>> rows;
  rows.push_back({"perplexity", FormatFigure(result.perplexity_base()),
                  FormatFigure(result.perplexity_converted()),
                  Ratio(result.perplexity_converted(), result.perplexity_base())});
  rows.push_back({"KV cache bytes a token", FormatCount(result.kv_bytes_per_token_base()),
                  FormatCount(result.kv_bytes_per_token_converted()),
                  Share(result.kv_bytes_per_token_converted(), result.kv_bytes_per_token_base())});
  std::string text = FormatTable({"", "before", "after", "after / before"}, rows);

  std::vector<std::vector<std::string>> phases;
  double total = 0;
  for (const v1::PhaseTiming& phase : result.phases()) {
    const double speed = phase.tokens_per_second();
    phases.push_back(
        {PhaseText(phase.phase()), FormatSeconds(phase.seconds()),
         speed > 0 && speed < 1e15 ? FormatCount(static_cast<int64_t>(speed + 0.5)) : "-"});
    total += phase.seconds();
  }
  phases.push_back({"total", FormatSeconds(total), ""});
  absl::StrAppend(&text, "\n", FormatTable({"phase", "time", "tokens/s"}, phases), "\n");

  std::vector<std::vector<std::string>> more = {
      {"peak memory", FormatBytes(result.peak_rss_bytes())}};
  if (const std::string measured = EvaluationText(spec); !measured.empty()) {
    more.push_back({"measured on", measured});
  }
  more.push_back({"artifact", PathText(result.artifact_uri())});
  more.push_back({"report", PathText(result.report_uri())});
  absl::StrAppend(&text, FormatTable({}, more));
  return text;
}

}  // namespace latentforge::client
