#include "client/app.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/command_line.h"
#include "base/version.h"
#include "client/commands/auth.h"
#include "client/commands/convert.h"
#include "client/commands/flag_checks.h"
#include "client/commands/help.h"
#include "client/commands/info.h"
#include "client/commands/job.h"
#include "client/commands/study.h"
#include "client/error.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/output.h"
#include "client/program_name.h"

namespace latentforge::client {
namespace {

constexpr char kProgramHelp[] = R"(Example:
  latentforge convert ./model --kv-budget 0.5 --calibration text.txt --out ./converted

Converts pretrained transformer checkpoints into ones that cache and compute less.)";

absl::Status UsageError(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = InnermostCommand(app);
  const std::vector<std::string> commands = CommandNames(command);
  std::string message = UnknownArgument(app);
  if (message.empty() && !commands.empty()) {
    message = absl::StrCat("a command of ", CommandPath(command),
                           " is missing: ", absl::StrJoin(commands, ", "));
  } else if (message.empty()) {
    message = RepeatedFlag(app);
  }
  if (message.empty()) {
    // Our checks go on after the name of the flag: "--seed: is ...".
    message = absl::StrReplaceAll(error.what(), {{": is ", " is "}});
  }
  return WithNextStep(absl::InvalidArgumentError(message),
                      absl::StrCat(CommandPath(command), " --help"));
}

std::string Render(const absl::Status& status, bool json, const CommandContext& context) {
  const absl::Status complete =
      WithNextStep(status, WithProgram(NextStepOf(status), context.program));
  return json ? RenderErrorJson(complete) : RenderErrorText(complete);
}

void Report(const absl::Status& status, bool json, const CommandContext& context) {
  context.terminal.Write(Render(status, json, context));
}

// What a second Ctrl-C leaves; behind a line that may have begun.
std::string LeavingText(bool json, const CommandContext& context) {
  const absl::Status left =
      WithExitCode(absl::CancelledError("left at once; what was begun stays"), kExitInterrupted);
  return absl::StrCat("\n", Render(WithNextStep(left, "the same command goes on"), json, context));
}

// A wrong flag that only the command itself, or the server, could see.
absl::Status WithHelp(const absl::Status& status, const CLI::App& app) {
  if (ExitCodeOf(status) != kExitUsage || !NextStepOf(status).empty()) return status;
  return WithNextStep(status, absl::StrCat(CommandPath(InnermostCommand(app)), " --help"));
}

// Also for arguments that do not parse.
bool WantsJson(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const bool apart = (argument == "-o" || argument == "--output") && i + 1 < arguments.size();
    const std::string value = apart                                     ? arguments[i + 1]
                              : absl::StartsWith(argument, "-o")        ? argument.substr(2)
                              : absl::StartsWith(argument, "--output=") ? argument.substr(9)
                                                                        : "";
    if (value == "json" || value == "jsonl") return true;
  }
  return false;
}

int PrintAnswer(const CLI::App& app, const CLI::Success& asked, bool json,
                const CommandContext& context) {
  std::ostringstream answer;
  const int code = app.exit(asked, answer, answer);
  const absl::Status printed = PrintOutput(answer.str());
  if (printed.ok()) return code;
  Report(printed, json, context);
  return ExitCodeOf(printed);
}

// Lists commands with one sentence each: a description begins with an example.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_subcommand(const CLI::App* command) const override {
    return absl::StrCat("  ", command->get_name(),
                        std::string(14 - std::min<size_t>(12, command->get_name().size()), ' '),
                        Summary(*command), "\n");
  }
};

}  // namespace

int RunApp(int argc, const char* const* argv, const CommandContext& context) {
  CLI::App app(kProgramHelp, "latentforge");
  app.set_version_flag("--version", absl::StrCat("latentforge ", kVersion));
  app.require_subcommand(1);
  app.formatter(std::make_shared<HelpFormatter>());
  app.get_formatter()->column_width(34);
  const bool json = WantsJson(std::vector<std::string>(argv + 1, argv + argc));
  SetLeavingText(LeavingText(json, context));
  Selection selection;
  AddConvertCommand(&app, context, &selection);
  AddStudyCommand(&app, context, &selection);
  AddEvaluateCommand(&app, context, &selection);
  AddJobCommands(&app, context, &selection);
  AddAuthCommands(&app, context, &selection);
  AddInfoCommands(&app, context, &selection);
  AddHelpCommand(&app, &selection);
  RefuseEmptyTexts(&app);
  // CLI11 reports by exception; this is the one place that meets it.
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return PrintAnswer(app, asked, json, context);
  } catch (const CLI::ParseError& error) {
    const absl::Status status = UsageError(app, error);
    Report(status, json, context);
    return ExitCodeOf(status);
  }
  const absl::Status status =
      WithHelp(selection.command ? selection.command() : absl::OkStatus(), app);
  if (!status.ok()) Report(status, json, context);
  return ExitCodeOf(status);
}

}  // namespace latentforge::client
