// The plots of a report, as programs for gnuplot.
#pragma once

#include <string>
#include <vector>

#include "worker/export/report.h"

namespace latentforge::exporter {

struct Plot {
  std::string name;     // of the file that it becomes, "kv_cache.svg"
  std::string caption;  // one line, for people
  std::string script;   // gnuplot 5 writes an SVG to its standard output
};

// What the report has figures for: the cached values of each layer, where a layer has ranks of
// keys and values; the loss by the size of the cache, predicted and measured; the course of
// healing. The same report gives the same scripts.
std::vector<Plot> PlotsOf(const Report& report);

}  // namespace latentforge::exporter
