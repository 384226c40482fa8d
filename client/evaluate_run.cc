#include "client/evaluate_run.h"

#include <signal.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/child_process.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/folder.h"
#include "checkpoint/model_config.h"
#include "client/child_output.h"
#include "client/compute_events.h"
#include "client/error.h"
#include "client/field_text.h"
#include "client/interrupt.h"
#include "client/local_device.h"
#include "client/output.h"
#include "client/own_program.h"
#include "client/progress_view.h"
#include "client/text_format.h"
#include "proto/enum_text.h"

namespace latentforge::client {
namespace {

void AddFlag(const char* flag, const std::optional<std::string>& value,
             std::vector<std::string>* command) {
  if (!value.has_value()) return;
  command->push_back(flag);
  command->push_back(*value);
}

std::optional<std::string> Number(const std::optional<int32_t>& value) {
  return value.has_value() ? std::optional<std::string>(absl::StrCat(*value)) : std::nullopt;
}

std::string FigureText(const std::string& key, const Json& value) {
  if (key == "seconds") return FormatSeconds(value.get<double>());
  if (key == "peak_rss_bytes") return FormatBytes(value.get<int64_t>());
  if (value.is_string()) return Printable(value.get<std::string>());
  if (value.is_number_integer()) return FormatCount(value.get<int64_t>());
  return value.is_number_float() ? FormatFigure(value.get<double>()) : Printable(WriteJson(value));
}

}  // namespace

std::string FiguresTable(const Json& figures) {
  static constexpr std::pair<const char*, const char*> kNames[] = {
      {"perplexity", "perplexity"},
      {"kv_bytes_per_token", "KV cache bytes a token"},
      {"windows", "windows"},
      {"window_length", "tokens in each"},
      {"seconds", "time"},
      {"tokens_per_second", "tokens/s"},
      {"peak_rss_bytes", "peak memory"},
      {"dtype", "computed in"},
      {"device", "device"},
      {"text", "measured on"},
      {"model", "model"}};
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, name] : kNames) {
    if (figures.contains(key)) rows.push_back({name, FigureText(key, figures[key])});
  }
  return FormatTable({}, rows);
}

namespace {

absl::Status PrintFigures(const std::string& text, OutputFormat format) {
  const absl::StatusOr<Json> figures = ParseJson(text);
  if (!figures.ok() || !figures->is_object()) {
    return absl::InternalError(
        absl::StrCat("latentforge-convert printed no JSON object: ", text.substr(0, 200)));
  }
  if (format == OutputFormat::kTable) return PrintOutput(FiguresTable(*figures));
  return PrintOutput(
      absl::StrCat(WriteJson(*figures, format == OutputFormat::kJson ? 2 : -1), "\n"));
}

// What lies in a folder. What cannot be read is for the compute process to refuse.
v1::PerplexityKind KindOf(const std::filesystem::path& folder) {
  const absl::StatusOr<std::string> text =
      checkpoint::ReadTextInFolder(folder, checkpoint::kConfigFile);
  if (!text.ok()) return v1::PERPLEXITY_KIND_BASE;
  const absl::StatusOr<checkpoint::ModelConfig> config = checkpoint::ParseModelConfig(*text);
  return config.ok() && config->converted() ? v1::PERPLEXITY_KIND_CONVERTED
                                            : v1::PERPLEXITY_KIND_BASE;
}

}  // namespace

std::vector<std::string> EvaluateCommandLine(const EvaluateOptions& options,
                                             const std::filesystem::path& program) {
  std::vector<std::string> command = {program.string(), "evaluate",   options.model,
                                      "--text",         options.text, "--events"};
  AddFlag("--text-field", options.text_field, &command);
  AddFlag("--windows", Number(options.windows), &command);
  AddFlag("--window-length", Number(options.window_length), &command);
  AddFlag("--dtype", options.dtype, &command);
  AddFlag("--device", options.device, &command);
  AddFlag("--threads", Number(options.threads), &command);
  return command;
}

absl::Status RunEvaluate(const EvaluateOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.output));
  if (format == OutputFormat::kName) {
    return absl::InvalidArgumentError("-o is \"name\", expected table, json or jsonl");
  }
  EvaluateOptions checked = options;
  if (options.dtype.has_value()) {
    LF_ASSIGN_OR_RETURN(const v1::DataType dtype, ParseComputeType("--dtype", *options.dtype));
    checked.dtype = ShortEnumName(dtype);
  }
  for (const auto& [flag, path] :
       {std::pair<const char*, std::string>{"MODEL", options.model}, {"--text", options.text}}) {
    if (!context.files.exists(context.files.current_folder / path)) {
      return WithReason(absl::NotFoundError(absl::StrCat(flag, ": ", path, " does not exist")),
                        flag[0] == 'M' ? "SOURCE_NOT_READABLE" : "CORPUS_NOT_READABLE");
    }
  }
  LF_RETURN_IF_ERROR(CheckLocalDevice(options.device.value_or("")));
  LF_ASSIGN_OR_RETURN(const std::filesystem::path program, OwnProgram("latentforge-convert"));
  LF_ASSIGN_OR_RETURN(
      const std::unique_ptr<ChildProcess> child,
      ChildProcess::Start({.argv = EvaluateCommandLine(checked, program), .expendable = true}));
  const KillOnInterrupt guard(child->pid());
  const std::unique_ptr<ProgressView> view = MakeProgressView(context.terminal, context.clock);
  ComputeEvents events(*view, KindOf(context.files.current_folder / options.model));
  bool told = false;
  const absl::StatusOr<std::string> output = ReadChildOutput(
      *child, [&](const std::string& line) { events.TakeLine(line); },
      [&] {
        view->Tick();
        if (Interrupted() && !std::exchange(told, true)) child->Signal(SIGTERM);
      });
  view->Finish();
  LF_RETURN_IF_ERROR(output.status());
  if (child->exit_status().ok()) return PrintFigures(*output, format);
  if (Interrupted()) return absl::CancelledError("interrupted; the evaluation was stopped");
  return events.Failure(child->exit_status().ToString());
}

}  // namespace latentforge::client
