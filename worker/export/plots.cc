#include "worker/export/plots.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/gnuplot.h"

namespace latentforge::exporter {
namespace {

// Rows of numbers under a name that `plot` can use.
class Data {
 public:
  explicit Data(absl::string_view name) : text_(absl::StrCat("$", name, " << EOD\n")) {}

  void Row(double x, double y) {
    absl::StrAppendFormat(&text_, "%.9g %.6g\n", x, y);
    empty_ = false;
  }
  bool empty() const { return empty_; }
  std::string Text() const { return absl::StrCat(text_, "EOD\n"); }

 private:
  std::string text_;
  bool empty_ = true;
};

Plot CacheByLayer(const Report& report) {
  Data joint("joint"), keys("keys"), both("both");
  double x = 0;
  for (const ReportLayer& layer : report.layers) {
    if (layer.rank_kv > 0) {
      joint.Row(x, static_cast<double>(layer.rank_kv));
    } else {
      keys.Row(x, static_cast<double>(layer.rank_k));
      both.Row(x, static_cast<double>(layer.rank_k + layer.rank_v));
    }
    ++x;
  }
  constexpr char kTitle[] = "Cached values of a token in each layer";
  std::string script = absl::StrCat(PlotHead(kTitle),
                                    "set style fill solid\n"
                                    "set boxwidth 0.8\n"
                                    "set xlabel 'layer, from 0'\n"
                                    "set ylabel 'cached values a token'\n"
                                    "set yrange [0:*]\n");
  absl::StrAppendFormat(&script, "set xrange [-0.7:%g]\n",
                        static_cast<double>(report.layers.size()) - 0.3);
  std::string plot;
  const auto add = [&](const Data& data, absl::string_view what) {
    if (data.empty()) return;
    absl::StrAppend(&script, data.Text());
    absl::StrAppend(&plot, plot.empty() ? "plot " : ", ", what);
  };
  add(joint, "$joint with boxes linecolor '#4477aa' title 'keys and values together'");
  // The taller boxes first: what shows of them is the part of the values.
  add(both, "$both with boxes linecolor '#ccbb44' title 'values'");
  add(keys, "$keys with boxes linecolor '#4477aa' title 'keys'");
  return {"cache_by_layer.svg", kTitle, absl::StrCat(script, plot, "\n")};
}

// Measured over predicted loss of the ranks that were chosen; nullopt where there is no such
// point or no sense in it.
std::optional<double> MeasuredOverPredicted(const Report& report,
                                            const ReportPrediction& prediction) {
  int64_t chosen = 0;
  for (const ReportLayer& layer : report.layers) {
    chosen += layer.rank_k + layer.rank_v + layer.rank_kv;
  }
  for (const ReportPrediction::Measured& point : prediction.measured) {
    if (point.values_per_token != chosen) continue;
    if (point.loss > 0 && prediction.loss > 0) return point.loss / prediction.loss;
  }
  return std::nullopt;
}

Plot LossByCache(const Report& report, const ReportPrediction& prediction) {
  const auto share = [values = prediction.curve.back().values_per_token](int64_t x) {
    return 100 * static_cast<double>(x) / static_cast<double>(values);
  };
  Data predicted("predicted"), scaled("scaled"), measured("measured");
  const std::optional<double> scale = MeasuredOverPredicted(report, prediction);
  for (const ReportPrediction::Point& point : prediction.curve) {
    if (!(point.loss > 0)) continue;  // no place on a logarithmic axis
    predicted.Row(share(point.values_per_token), point.loss);
    if (scale) scaled.Row(share(point.values_per_token), *scale * point.loss);
  }
  for (const ReportPrediction::Measured& point : prediction.measured) {
    if (point.loss > 0) measured.Row(share(point.values_per_token), point.loss);
  }
  constexpr char kTitle[] = "Loss by the size of the cache, without healing";
  std::string script = absl::StrCat(PlotHead(kTitle),
                                    "set logscale y\n"
                                    "set format y '10^{%L}'\n"
                                    "set xrange [0:100]\n"
                                    "set grid xtics\n"
                                    // The budgets that people ask for.
                                    "set xtics ('0' 0, '1/8' 12.5, '1/4' 25, '1/3' 100/3.0, "
                                    "'1/2' 50, '2/3' 200/3.0, '3/4' 75, '1' 100)\n"
                                    "set xlabel 'share of the original key-value cache'\n"
                                    "set ylabel 'loss over the original, nats a token'\n",
                                    predicted.Text());
  std::string plot = "plot $predicted with lines linewidth 2 linecolor '#4477aa' title 'predicted'";
  if (!scaled.empty()) {
    absl::StrAppend(&script, scaled.Text());
    absl::StrAppend(&plot,
                    ", $scaled with lines dashtype 2 linecolor '#cc3311' "
                    "title 'predicted, scaled'");
  }
  if (!measured.empty()) {
    absl::StrAppend(&script, measured.Text());
    absl::StrAppend(&plot,
                    ", $measured with points pointtype 7 linecolor '#cc3311' title 'measured'");
  }
  return {"loss_by_cache.svg", kTitle, absl::StrCat(script, plot, "\n")};
}

Plot Healing(const ReportHealing& healing) {
  Data loss("loss"), rate("rate"), held_back("held_back");
  for (const ReportHealing::Step& step : healing.history) {
    loss.Row(static_cast<double>(step.step), step.loss);
    rate.Row(static_cast<double>(step.step), step.learning_rate);
  }
  for (const ReportHealing::Measurement& measured : healing.measurements) {
    held_back.Row(static_cast<double>(measured.step), measured.divergence);
  }
  constexpr char kTitle[] = "Divergence from the original in the course of healing";
  return {"healing.svg", kTitle,
          absl::StrCat(PlotHead(kTitle), "set xrange [0:", healing.history.back().step, "]\n",
                       "set xlabel 'step'\n"
                       "set ylabel 'divergence from the original, nats a token'\n"
                       "set y2label 'learning rate'\n"
                       "set y2tics textcolor '#444444' format '%g'\n"
                       "set yrange [0:*]\n"
                       "set y2range [0:*]\n",
                       rate.Text(), loss.Text(), held_back.Text(),
                       "plot $rate axes x1y2 with lines dashtype 2 linecolor '#bbbbbb' "
                       "title 'learning rate', "
                       "$loss with lines linecolor '#88bbdd' title 'text of the step', "
                       "$held_back with linespoints linewidth 2 pointtype 7 pointsize 0.7 "
                       "linecolor '#cc3311' title 'held-back text'\n")};
}

}  // namespace

std::vector<Plot> PlotsOf(const Report& report) {
  std::vector<Plot> plots;
  const auto rises = [](const ReportPrediction& prediction) {
    return !prediction.curve.empty() && prediction.curve.back().values_per_token > 0 &&
           prediction.curve.front().loss > 0;
  };
  if (report.prediction && rises(*report.prediction)) {
    plots.push_back(LossByCache(report, *report.prediction));
  }
  // Layers whose cache is the original's have nothing to show.
  const bool caches = std::any_of(
      report.layers.begin(), report.layers.end(),
      [](const auto& layer) { return layer.rank_k + layer.rank_v + layer.rank_kv > 0; });
  if (caches) plots.push_back(CacheByLayer(report));
  if (report.healing && !report.healing->history.empty()) plots.push_back(Healing(*report.healing));
  return plots;
}

}  // namespace latentforge::exporter
