#include "client/commands/help.h"

#include <algorithm>
#include <memory>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/command_line.h"
#include "base/suggest.h"
#include "client/exit_code.h"
#include "client/output.h"

namespace latentforge::client {
namespace {

constexpr char kExitCodes[] = "exit-codes";

const CLI::App* Child(const CLI::App& command, const std::string& name) {
  for (const CLI::App* child : command.get_subcommands({})) {
    if (child->get_name() == name) return child;
  }
  return nullptr;
}

absl::Status NoTopic(const CLI::App& command, const std::string& word) {
  std::vector<std::string> topics = CommandNames(command);
  if (topics.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", word, "\" is no topic: ", CommandPath(command), " has no commands"));
  }
  if (command.get_parent() == nullptr) topics.push_back(kExitCodes);
  return absl::InvalidArgumentError(absl::StrCat("\"", word, "\" is no topic, expected one of ",
                                                 absl::StrJoin(topics, ", "),
                                                 DidYouMean(word, topics)));
}

absl::Status PrintHelp(const CLI::App& app, const std::vector<std::string>& topic) {
  if (topic.size() == 1 && topic[0] == kExitCodes) return PrintOutput(ExitCodesHelp());
  const CLI::App* command = &app;
  for (const std::string& word : topic) {
    const CLI::App* child = Child(*command, word);
    if (child == nullptr) return NoTopic(*command, word);
    command = child;
  }
  return PrintOutput(HelpOf(*command));
}

}  // namespace

// CLI::App::help would give that of the command that was parsed: of `help` itself.
std::string HelpOf(const CLI::App& command) {
  return command.get_formatter()->make_help(&command, CommandPath(command),
                                            CLI::AppFormatMode::Normal);
}

std::string Summary(const CLI::App& command) {
  std::string summary = command.get_description();
  if (const size_t gap = summary.rfind("\n\n"); gap != std::string::npos) summary.erase(0, gap + 2);
  std::replace(summary.begin(), summary.end(), '\n', ' ');
  // A dot within a word ends no sentence.
  for (size_t i = 0; i < summary.size(); ++i) {
    const bool stop = summary[i] == '.' || summary[i] == ':' || summary[i] == ';';
    if (stop && (i + 1 == summary.size() || summary[i + 1] == ' ')) return summary.substr(0, i);
  }
  return summary;
}

void AddHelpCommand(CLI::App* app, Selection* selection) {
  CLI::App* help = app->add_subcommand("help", R"(Example:
  latentforge help job submit

Shows help on a command, or on exit-codes.)");
  auto topic = std::make_shared<std::vector<std::string>>();
  help->add_option("TOPIC", *topic, "A command, or exit-codes (default: the overview)");
  help->callback([topic, app, selection] {
    selection->command = [topic, app] { return PrintHelp(*app, *topic); };
  });
}

}  // namespace latentforge::client
