#include "client/commands/info.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/conversion_defaults.h"
#include "base/conversion_limits.h"
#include "client/commands/flag_checks.h"
#include "client/commands/job.h"
#include "client/evaluate_run.h"
#include "client/info_run.h"

namespace latentforge::client {
namespace {

constexpr char kFormats[] = "table, json or jsonl (default: table)";

void AddInspect(CLI::App* app, const CommandContext& context, Selection* selection) {
  CLI::App* model = app->add_subcommand("model", R"(Example:
  latentforge model inspect ./SmolLM2-135M-Instruct

Looks at checkpoints on this machine.)");
  model->require_subcommand(1);
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = model->add_subcommand("inspect", R"(Example:
  latentforge model inspect ./SmolLM2-135M-Instruct

Checks a checkpoint or an artifact and shows its shape, its KV cache and what
budgets would make of it.)");
  command->add_option("MODEL", options->model, "Folder of the checkpoint")->required();
  command->add_option("-o,--output", options->output, kFormats);
  Choose(command, options, RunInspect, context, selection);
}

void AddWorkers(CLI::App* app, const CommandContext& context, Selection* selection) {
  CLI::App* worker = app->add_subcommand("worker", R"(Example:
  latentforge worker list

Looks at the workers of a server.)");
  worker->require_subcommand(1);
  auto options = std::make_shared<ListWorkersOptions>();
  CLI::App* command = worker->add_subcommand("list", R"(Example:
  latentforge worker list --server localhost:8470

Lists the workers that were seen lately.)");
  command->add_option("--page-size", options->page_size, "Most workers in a page (default: 50)")
      ->check(Integer(1, 1000));
  command->add_option("--page-token", options->page_token, "The page to show (default: the first)");
  command->add_flag("--all", options->all, "Shows every page (default: off)");
  AddServerOptions(command, &options->server, "table, json, jsonl or name (default: table)");
  Choose(command, options, RunListWorkers, context, selection);
}

void AddHealth(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<HealthOptions>();
  CLI::App* command = app->add_subcommand("health", R"(Example:
  latentforge health --server localhost:8470

Opens a new connection and asks for the server's health (grpc.health.v1). Exit code 0
when it is SERVING, else 9.)");
  command->add_option(
      "--service", options->service,
      "Service to ask for, such as latentforge.v1.JobService (default: the server)");
  command->add_option("--timeout", options->timeout, "How long to wait (default: 5s)");
  AddServerOptions(command, &options->server, kFormats);
  Choose(command, options, RunHealth, context, selection);
}

void AddVersion(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<VersionOptions>();
  CLI::App* command = app->add_subcommand("version", R"(Example:
  latentforge version --server localhost:8470

Shows the version of this program, and with --server or --ask-server of the server.)");
  command->add_flag("--ask-server", options->ask_server,
                    "Asks the server of $LATENTFORGE_SERVER, or the default one (default: off)");
  AddServerOptions(command, &options->server, kFormats);
  Choose(command, options, RunVersion, context, selection);
}

}  // namespace

void AddEvaluateCommand(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = app->add_subcommand("evaluate", R"(Example:
  latentforge evaluate ./SmolLM2-latent --text test.txt

Measures the perplexity of a checkpoint or an artifact on this machine.)");
  command->add_option("MODEL", options->model, "Folder of the checkpoint or artifact")->required();
  command->add_option("--text", options->text, "Plain text, or JSON lines (required)")
      ->required()
      ->type_name("FILE");
  command->add_option("--text-field", options->text_field,
                      "Field that holds the text, for JSON lines (default: none)");
  command
      ->add_option("--windows", options->windows,
                   absl::StrCat("Number of windows (default: ", kDefaultEvaluationWindows, ")"))
      ->check(Integer(1, kMaxSequences));
  command
      ->add_option("--window-length", options->window_length,
                   absl::StrCat("Tokens in each (default: ", kDefaultWindowLength, ")"))
      ->check(Integer(2, kMaxSequenceLength));
  command->add_option("--dtype", options->dtype,
                      "Format of the computation: float32, bfloat16 (default: bfloat16)");
  command->add_option("--device", options->device, "auto, cpu, cuda or cuda:N (default: auto)");
  command->add_option("--threads", options->threads, "Threads of the computation (default: all)")
      ->check(Integer(1, kMaxThreads));
  command->add_option("-o,--output", options->output, kFormats);
  Choose(command, options, RunEvaluate, context, selection);
}

void AddInfoCommands(CLI::App* app, const CommandContext& context, Selection* selection) {
  AddInspect(app, context, selection);
  AddWorkers(app, context, selection);
  AddHealth(app, context, selection);
  AddVersion(app, context, selection);
}

}  // namespace latentforge::client
