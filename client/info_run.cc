#include "client/info_run.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/folder.h"
#include "checkpoint/inspect.h"
#include "checkpoint/open_error.h"
#include "client/conversion_client.h"
#include "client/error.h"
#include "client/health.h"
#include "client/model_summary.h"
#include "client/output.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

// A small object: rows for people, JSON for programs.
absl::Status PrintObject(const Json& object, OutputFormat format) {
  if (format != OutputFormat::kTable) {
    return PrintOutput(
        absl::StrCat(WriteJson(object, format == OutputFormat::kJson ? 2 : -1), "\n"));
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : object.items()) {
    rows.push_back({key, Printable(value.get<std::string>())});
  }
  return PrintOutput(FormatTable({}, rows));
}

// With the reason that a submitted job would be refused for; the advice on it elsewhere is to
// inspect the model.
absl::Status Refusal(const absl::Status& status) {
  const std::string reason = checkpoint::ReasonOfOpenError(status);
  const absl::Status refusal = WithReason(status, reason);
  if (reason != "UNSUPPORTED_ARCHITECTURE") return refusal;
  return WithNextStep(refusal, "give a checkpoint whose family and options README.md lists");
}

absl::Status TokenizerRefusal(const absl::Status& status) {
  const bool unread = absl::IsNotFound(status) || absl::IsPermissionDenied(status);
  return WithReason(status, unread ? "SOURCE_NOT_READABLE" : "MALFORMED_TOKENIZER");
}

// What config.json says of a checkpoint that is refused, as far as it can be read.
absl::Status PrintConfig(const std::filesystem::path& folder, OutputFormat format) {
  constexpr int kMostColumns = 120;
  const auto text = checkpoint::ReadTextInFolder(folder, checkpoint::kConfigFile);
  const auto facts = checkpoint::ConfigFacts(text.value_or(""));
  if (facts.empty() || format == OutputFormat::kName) return absl::OkStatus();
  if (format == OutputFormat::kTable) {
    std::vector<std::vector<std::string>> rows = {{"path", Printable(folder.string())}};
    for (const auto& [key, value] : facts) {
      rows.push_back(
          {key, Truncate(Printable(value.is_string() ? value.get<std::string>() : WriteJson(value)),
                         kMostColumns)});
    }
    return PrintOutput(FormatTable({}, rows));
  }
  Json json = {{"path", folder.string()}, {"config", Json::object()}};
  for (const auto& [key, value] : facts) json["config"][key] = value;
  return PrintOutput(absl::StrCat(WriteJson(json, format == OutputFormat::kJson ? 2 : -1), "\n"));
}

absl::Status PrintModel(const checkpoint::ModelSummary& summary, OutputFormat format) {
  if (format == OutputFormat::kTable) return PrintOutput(ModelTable(summary));
  if (format == OutputFormat::kName) return PrintOutput(absl::StrCat(summary.model_type, "\n"));
  return PrintOutput(
      absl::StrCat(WriteJson(ModelJson(summary), format == OutputFormat::kJson ? 2 : -1), "\n"));
}

}  // namespace

absl::Status RunInspect(const InspectOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.output));
  const std::filesystem::path path =
      (context.files.current_folder / options.model).lexically_normal();
  const absl::StatusOr<checkpoint::Checkpoint> checkpoint = checkpoint::Checkpoint::Open(path);
  if (!checkpoint.ok()) {
    LF_RETURN_IF_ERROR(PrintConfig(path, format));
    return Refusal(checkpoint.status());
  }
  const checkpoint::ModelSummary summary = checkpoint::Summarize(*checkpoint);
  LF_RETURN_IF_ERROR(PrintModel(summary, format));
  // The rest of it is worth seeing, but nothing can be done with it.
  return TokenizerRefusal(summary.tokenizer);
}

absl::Status RunListWorkers(const ListWorkersOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  v1::ListWorkersRequest request;
  request.set_page_size(options.page_size);
  request.set_page_token(options.page_token);
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  LF_ASSIGN_OR_RETURN(v1::ListWorkersResponse workers, client.ListWorkers(request));
  while (options.all && !workers.next_page_token().empty()) {
    request.set_page_token(workers.next_page_token());
    LF_ASSIGN_OR_RETURN(const v1::ListWorkersResponse page, client.ListWorkers(request));
    workers.mutable_workers()->MergeFrom(page.workers());
    workers.set_next_page_token(page.next_page_token());
  }
  LF_ASSIGN_OR_RETURN(const std::string text, RenderWorkers(workers, format));
  return PrintOutput(text);
}

absl::Status RunHealth(const HealthOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  absl::Duration timeout;
  if (!absl::ParseDuration(options.timeout, &timeout) || timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--timeout is \"", options.timeout, "\", expected a time span such as 5s"));
  }
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  LF_ASSIGN_OR_RETURN(const std::string health,
                      CheckHealth(*server.channel, server.address, options.service, timeout));
  if (format == OutputFormat::kName) {
    LF_RETURN_IF_ERROR(PrintOutput(absl::StrCat(health, "\n")));
  } else {
    LF_RETURN_IF_ERROR(PrintObject({{"server", server.address}, {"status", health}}, format));
  }
  if (health == "SERVING") return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("server ", server.address, " is ", health));
}

absl::Status RunVersion(const VersionOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  Json versions = {{"client", kVersion}};
  if (options.ask_server || options.server.server.has_value()) {
    LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
    ConversionClient client(server.channel, server.address, context.clock);
    LF_ASSIGN_OR_RETURN(versions["server"], client.ServerVersion());
  }
  if (format == OutputFormat::kName) return PrintOutput(absl::StrCat(kVersion, "\n"));
  return PrintObject(versions, format);
}

}  // namespace latentforge::client
