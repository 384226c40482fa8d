#include "client/commands/convert.h"

#include <memory>

#include "client/commands/spec_options.h"
#include "client/convert_run.h"

namespace latentforge::client {
namespace {

constexpr char kConvertHelp[] =
    R"(Example:
  latentforge convert ./SmolLM2-135M-Instruct --kv-budget 0.5 \
    --calibration train.txt --evaluate test.txt --out ./SmolLM2-latent

Converts a checkpoint on this machine: starts a private server and worker, shows
progress, and ends with perplexity and KV cache bytes before and after. Ctrl-C
cancels and removes what was written; a second Ctrl-C leaves at once. After a crash or
a kill the same command continues behind the last finished layer.)";

}  // namespace

void AddConvertCommand(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = app->add_subcommand("convert", kConvertHelp);
  AddSpecOptions(command, &options->spec);
  command->add_option("-o,--output", options->output,
                      "table, json (report.json), jsonl or name (folder of the artifact) (default: "
                      "table)");
  command
      ->add_option("--work-dir", options->work_dir,
                   "Folder for databases, logs and finished layers while the job runs (default: "
                   "$XDG_STATE_HOME/latentforge)")
      ->type_name("DIR");
  command->add_flag("--keep-work", options->keep_work,
                    "Keeps what lies in --work-dir after the end (default: off)");
  command->callback([options, &context, selection] {
    selection->command = [options, &context] { return RunConvert(*options, context); };
  });
}

}  // namespace latentforge::client
