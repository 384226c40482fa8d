#include "base/command_line.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/suggest.h"

namespace latentforge {
namespace {

std::vector<std::string> FlagNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(absl::StrCat("--", name));
  }
  return names;
}

}  // namespace

std::string CommandPath(const CLI::App& command) {
  if (command.get_parent() == nullptr) return command.get_name();
  return absl::StrCat(CommandPath(*command.get_parent()), " ", command.get_name());
}

std::vector<std::string> CommandNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* child : command.get_subcommands({})) names.push_back(child->get_name());
  return names;
}

const CLI::App& InnermostCommand(const CLI::App& app) {
  const CLI::App* innermost = &app;
  while (!innermost->get_subcommands().empty()) innermost = innermost->get_subcommands().front();
  return *innermost;
}

std::string UnknownArgument(const CLI::App& app) {
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (unknown.empty()) return "";
  const CLI::App& command = InnermostCommand(app);
  const std::vector<std::string> commands = CommandNames(command);
  const bool flag = absl::StartsWith(unknown[0], "-");
  const char* kind = flag ? "flag" : commands.empty() ? "argument" : "command";
  const std::string name = unknown[0].substr(0, unknown[0].find('='));
  return absl::StrCat("\"", name, "\" is no ", kind, " of ", CommandPath(command),
                      DidYouMean(name, flag ? FlagNames(command) : commands));
}

std::string RepeatedFlag(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::vector<std::string>& values = option->results();
    if (option->get_items_expected_max() != 1 || values.size() < 2) continue;
    const std::string times = values.size() == 2 ? "twice" : absl::StrCat(values.size(), " times");
    return absl::StrCat(option->get_name(), " is given ", times, ", as \"",
                        absl::StrJoin(values, "\" and \""), "\", expected once");
  }
  for (const CLI::App* command : app.get_subcommands()) {
    if (std::string repeated = RepeatedFlag(*command); !repeated.empty()) return repeated;
  }
  return "";
}

void ExplainUnknownArguments(CLI::App* app) {
  app->failure_message([](const CLI::App* failed, const CLI::Error& error) {
    std::string problem = UnknownArgument(*failed);
    if (problem.empty()) problem = RepeatedFlag(*failed);
    if (problem.empty()) return CLI::FailureMessage::simple(failed, error);
    return absl::StrCat(problem, "\nRun with --help for more information.\n");
  });
}

}  // namespace latentforge
