// What a study ends with: tables, CSV, JSON and a plot of its cells.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "client/study_cells.h"
#include "client/study_grid.h"

namespace latentforge::client {

// The cells of `grid` that have ended, in the order of the table.
struct StudyResults {
  std::vector<std::string> rows;
  std::vector<double> ratios;
  std::vector<CellRecord> cells;  // row and ratio are those of the grid
};

// The perplexity of every row at every ratio, "failed" where a cell failed and "-" where it has not
// run; below, the share of the linear maps' parameters that is gone in truth.
std::string StudyTable(const StudyResults& results);

// A header and a line a cell, RFC 4180.
std::string StudyCsv(const StudyResults& results);

// {"rows", "ratios", "cells": [as in cells.jsonl]}.
Json StudyJson(const StudyResults& results);

// Perplexity by the share of parameters that is gone, a line a row, for gnuplot; empty where no
// cell has a perplexity.
std::string StudyPlot(const StudyResults& results);

}  // namespace latentforge::client
