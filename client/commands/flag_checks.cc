#include "client/commands/flag_checks.h"

#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace latentforge::client {
namespace {

// A check that says `is "TEXT", expected EXPECTED` unless `good`.
template <typename Good>
CLI::Validator Expect(std::string expected, Good good) {
  return CLI::Validator(
      [expected = std::move(expected), good](const std::string& text) {
        return good(text) ? std::string() : absl::StrCat("is \"", text, "\", expected ", expected);
      },
      "");
}

}  // namespace

CLI::Validator Integer(int64_t least, int64_t most) {
  const bool open = most == std::numeric_limits<int64_t>::max();
  const std::string expected = open ? absl::StrCat("an integer of at least ", least)
                                    : absl::StrCat("an integer from ", least, " to ", most);
  return Expect(expected, [least, most](const std::string& text) {
    int64_t value = 0;
    return absl::SimpleAtoi(text, &value) && value >= least && value <= most;
  });
}

CLI::Validator Unsigned() {
  return Expect("an integer from 0 to 2^64 - 1", [](const std::string& text) {
    uint64_t value = 0;
    return text.find('-') == std::string::npos && absl::SimpleAtoi(text, &value);
  });
}

// NaN is on neither side of a limit, so each test asks for the good range.
CLI::Validator Number(double least, double most) {
  return Expect(absl::StrFormat("a number from %.15g to %.15g", least, most),
                [least, most](const std::string& text) {
                  double value = 0;
                  return absl::SimpleAtod(text, &value) && value >= least && value <= most;
                });
}

CLI::Validator AboveOne(const std::string& example) {
  return Expect("a number above 1, such as " + example, [](const std::string& text) {
    double value = 0;
    return absl::SimpleAtod(text, &value) && std::isfinite(value) && value > 1;
  });
}

CLI::Validator AtLeastOne(const std::string& example) {
  return Expect("a number of at least 1, such as " + example, [](const std::string& text) {
    double value = 0;
    return absl::SimpleAtod(text, &value) && std::isfinite(value) && value >= 1;
  });
}

CLI::Validator Share(const std::string& example) {
  return Expect("a number in (0, 1], such as " + example, [](const std::string& text) {
    double value = 0;
    return absl::SimpleAtod(text, &value) && value > 0 && value <= 1;
  });
}

void RefuseEmptyTexts(CLI::App* app) {
  for (CLI::Option* option : app->get_options()) {
    // The first page, and the server itself: what a script passes on from a variable.
    const bool may_be_empty = option->check_lname("page-token") || option->check_lname("service") ||
                              option->get_items_expected_max() == 0;
    if (may_be_empty) continue;
    option->check(CLI::Validator(
        [](const std::string& text) {
          return text.empty() ? std::string("is empty, expected a value") : std::string();
        },
        ""));
  }
  for (CLI::App* command : app->get_subcommands({})) RefuseEmptyTexts(command);
}

}  // namespace latentforge::client
