#include "client/commands/study.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/commands/spec_options.h"
#include "client/field_text.h"
#include "client/study_run.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {
namespace {

constexpr char kStudyHelp[] =
    R"(Example:
  latentforge study ./SmolLM2-135M-Instruct --calibration train.txt \
    --evaluate test.txt --out ./study

Measures the perplexity of low-rank compressions on this machine, a grid of rows by ratios: by
default the rows of the LatentLLM slides and this program's own at 10 to 50 % of the parameters.
All cells share one calibration and one evaluation of the original. FOLDER/cells.jsonl gets a line
for each cell that has ended; the same command goes on behind them after Ctrl-C, a kill or a crash.
Ends with a table, FOLDER/study.csv and FOLDER/study.svg.)";

CLI::Option* AddList(CLI::App* app, const char* name, std::vector<std::string>* values,
                     const std::string& help, const char* type = "LIST") {
  return app->add_option(name, *values, help)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name(type);
}

void AddGridOptions(CLI::App* app, StudyFlags* flags) {
  std::string group = "Rows";
  AddList(app, "--ratios", &flags->ratios,
          "Shares of the parameters of the decoder's linear maps that go (default: "
          "0.1,0.2,0.3,0.4,0.5)")
      ->group(group);
  AddList(app, "--preconditioners", &flags->preconditioners,
          absl::StrCat("What errors count by: ", EnumChoices(*v1::Preconditioner_descriptor()),
                       " (default: root-covariance, where --query-key or --value-output is given)"))
      ->group(group);
  AddList(app, "--query-key", &flags->query_key,
          absl::StrCat("Whether queries and keys are compressed for their product: ",
                       EnumChoices(*v1::JointMode_descriptor()),
                       "; joint is for root-covariance alone (default: local)"))
      ->group(group);
  AddList(app, "--value-output", &flags->value_output,
          absl::StrCat("The same of values and attention's output: ",
                       EnumChoices(*v1::JointMode_descriptor()), " (default: local)"))
      ->group(group);
  app->add_flag("--named-rows", flags->named_rows,
                "The rows of the slides beside those of the three flags above: plain SVD, Hessian, "
                "l1, l2, Cov, RootCov, LatentLLM, and Fisher with global ranks (default: where "
                "none of the three is given)")
      ->group(group);
  group = "Repetitions of every row";
  AddList(app, "--factor-layouts", &flags->factor_layouts,
          absl::StrCat("How factors are stored: ", EnumChoices(*v1::FactorLayout_descriptor()),
                       " (default: block-identity)"))
      ->group(group);
  AddList(app, "--mlp", &flags->mlp,
          absl::StrCat("How an MLP is compressed: ", EnumChoices(*v1::MlpCompression_descriptor()),
                       " (default: local)"))
      ->group(group);
  AddList(app, "--bias-update", &flags->bias_update,
          "Whether a bias corrects the mean error: off, on (default: off)")
      ->group(group);
  AddList(app, "--activations", &flags->activations,
          absl::StrCat("Whose activations layers are compressed for: ",
                       EnumChoices(*v1::ActivationSource_descriptor()),
                       "; those of compressed layers are each cell's own calibration (default: "
                       "original)"))
      ->group(group);
}

}  // namespace

void AddStudyCommand(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<StudyOptions>();
  CLI::App* command = app->add_subcommand("study", kStudyHelp);
  SpecFlags& spec = options->flags.spec;
  command->add_option("MODEL", spec.model, "Folder of the checkpoint (required)");
  command
      ->add_option("--out", options->out,
                   "Folder of the study; one that holds cells goes on (required)")
      ->type_name("DIR");
  command->add_flag(
      "--keep", options->keep,
      "Keeps the artifact of each cell that this run measures in FOLDER/cells; those recorded "
      "without it have none (default: off)");
  command->add_option("-o,--output", options->output, "table, json, jsonl or csv (default: table)");
  command
      ->add_option("--work-dir", options->work_dir,
                   "Folder for databases, logs and statistics (default: "
                   "$XDG_STATE_HOME/latentforge)")
      ->type_name("DIR");
  AddGridOptions(command, &options->flags);
  AddFactorOptions(command, &spec);
  AddCalibrationOptions(command, &spec);
  AddEvaluationOptions(command, &spec);
  command->get_option("--evaluate")->description("Text to measure perplexity on (required)");
  AddComputationOptions(command, &spec);
  Choose(command, options, RunStudy, context, selection);
}

}  // namespace latentforge::client
