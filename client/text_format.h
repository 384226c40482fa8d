// Numbers, times and tables for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/timestamp.pb.h"

namespace latentforge::client {

// "0.4 s", "12.3 s", "4m 05s", "2h 07m"; "-" when negative or not finite.
std::string FormatSeconds(double seconds);

// "512 B", "1.5 KiB", "2.3 GiB".
std::string FormatBytes(int64_t bytes);

// Whole number with thousands separators: "1,234,567".
std::string FormatCount(int64_t value);

// A perplexity or ratio: four significant digits, "-" when not finite or 0.
std::string FormatFigure(double value);

// "2026-01-31 12:00:05" in UTC; "-" when unset.
std::string FormatTime(const google::protobuf::Timestamp& time);

// Columns padded to their widest cell and separated by two blanks; the last
// column is not padded. Rows may be shorter than the header.
std::string FormatTable(const std::vector<std::string>& header,
                        const std::vector<std::vector<std::string>>& rows);

// Code points, which is what a terminal's columns hold for the texts used here.
int DisplayWidth(absl::string_view text);

// At most `columns` code points; a cut text ends in "~".
std::string Truncate(absl::string_view text, int columns);

// Control characters become "?": nothing from a server may steer a terminal.
std::string Printable(absl::string_view text);

}  // namespace latentforge::client
