#include "base/command_line.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

using testing::HasSubstr;
using testing::Not;

// What a program with a flag, a required flag, and a command prints of a wrong command line.
std::string ErrorOf(std::vector<const char*> arguments) {
  CLI::App app("A program.", "program");
  std::string text;
  app.add_option("--slots", text);
  app.add_option("--database", text)->required();
  CLI::App* command = app.add_subcommand("evaluate", "A command.");
  command->add_option("--windows", text)->check(CLI::Number);
  ExplainUnknownArguments(&app);
  arguments.insert(arguments.begin(), "program");
  std::ostringstream out, error;
  try {
    app.parse(static_cast<int>(arguments.size()), arguments.data());
  } catch (const CLI::ParseError& failed) {
    EXPECT_NE(app.exit(failed, out, error), 0);
  }
  return error.str();
}

TEST(CommandLineTest, AMistypedFlagIsAnsweredWithTheNearestOne) {
  EXPECT_EQ(ErrorOf({"--database", "d", "--slost", "3"}),
            "\"--slost\" is no flag of program; did you mean --slots?\n"
            "Run with --help for more information.\n");
  EXPECT_THAT(ErrorOf({"--database=d", "--slost=3"}), HasSubstr("did you mean --slots?"));
  // Not that the flag is missing that was mistyped.
  EXPECT_THAT(ErrorOf({"--databse", "d"}), HasSubstr("did you mean --database?"));
  EXPECT_THAT(ErrorOf({"--database", "d", "evaluate", "--window", "3"}),
              HasSubstr("\"--window\" is no flag of program evaluate; did you mean --windows?"));
}

TEST(CommandLineTest, WhatIsNearToNothingIsNamedAlone) {
  EXPECT_THAT(ErrorOf({"--database", "d", "--surprise"}),
              HasSubstr("\"--surprise\" is no flag of program\n"));
  EXPECT_THAT(ErrorOf({"--database", "d", "evalaute"}),
              HasSubstr("\"evalaute\" is no command of program; did you mean evaluate?"));
  EXPECT_THAT(ErrorOf({"--database", "d", "evaluate", "more"}),
              HasSubstr("\"more\" is no argument of program evaluate\n"));
}

TEST(CommandLineTest, AFlagThatIsGivenTwiceIsNamedWithItsValues) {
  EXPECT_THAT(ErrorOf({"--database", "d", "--slots", "1", "--slots=2"}),
              HasSubstr("--slots is given twice, as \"1\" and \"2\", expected once\n"));
  EXPECT_THAT(ErrorOf({"--database", "d", "evaluate", "--windows", "1", "--windows", "1",
                       "--windows", "3"}),
              HasSubstr("--windows is given 3 times, as \"1\" and \"1\" and \"3\", "));
}

TEST(CommandLineTest, OtherErrorsStayAsTheyAre) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("--database is required"));
  EXPECT_THAT(ErrorOf({"--database", "d", "evaluate", "--windows", "x"}), Not(HasSubstr("is no")));
}

}  // namespace
}  // namespace latentforge
