#include "client/commands/job.h"

#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/commands/flag_checks.h"
#include "client/commands/spec_options.h"
#include "client/field_text.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::client {
namespace {

constexpr char kOneJobFormats[] = "table, json, jsonl or name (default: table)";

void AddTimeout(CLI::App* command, WaitOptions* options) {
  command
      ->add_option(
          "--timeout", options->timeout,
          "Stops waiting after this time, with exit code 8; the job runs on (default: none)")
      ->type_name("TIME");
}

void AddSubmit(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* command = app->add_subcommand("submit", R"(Example:
  latentforge job submit /models/SmolLM2 --kv-budget 0.5 \
    --calibration /data/train.txt --out /models/SmolLM2-latent --wait

Submits a conversion to a server and prints the job's name.)");
  AddSpecOptions(command, &options->spec);
  AddSchedulingOptions(command, &options->spec);
  AddServerOptions(command, &options->server,
                   "table (the job's name alone), json or jsonl (default: table)");
  command->add_option("--request-id", options->request_id,
                      "Submitting twice with the same id makes one job (default: a new UUID)");
  command->add_flag("--validate-only", options->validate_only,
                    "Checks everything, prints what the conversion needs, and submits nothing "
                    "(default: off)");
  command->add_flag(
      "--wait", options->wait,
      "Watches until the job ends; Ctrl-C stops watching, not the job (default: off)");
  AddTimeout(command, &options->waiting);
  Choose(command, options, RunSubmit, context, selection);
}

void AddWatch(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<WatchJobOptions>();
  CLI::App* command = app->add_subcommand("watch", R"(Example:
  latentforge job watch jobs/1234 -o jsonl

Shows a job's progress until it ends, across lost connections; exit code 0, 3 or 5
says how it ended. Ctrl-C stops watching, not the job.)");
  command->add_option("JOB", options->job, "Name of the job")->required();
  command
      ->add_option("--from-sequence", options->from_sequence,
                   "Shows events behind this one; 0 shows all (default: new events only)")
      ->check(Integer(0, std::numeric_limits<int64_t>::max()));
  AddServerOptions(command, &options->server,
                   "table, json, name, or jsonl for events as they come (default: table)");
  AddTimeout(command, &options->waiting);
  Choose(command, options, RunWatch, context, selection);
}

void AddLogs(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<LogsOptions>();
  CLI::App* command = app->add_subcommand("logs", R"(Example:
  latentforge job logs jobs/1234 --tail 100 --follow

Shows what the attempts' compute processes wrote to their logs.)");
  command->add_option("JOB", options->job, "Name of the job")->required();
  command
      ->add_option("--attempt", options->attempt,
                   "The log of this attempt alone (default: of all, one after another)")
      ->check(Integer(1, std::numeric_limits<int32_t>::max()));
  command
      ->add_option("--tail", options->tail,
                   "Begins with this many last lines, of the last attempt unless --attempt names "
                   "one (default: with the oldest lines that the server has)")
      ->check(Integer(1, 1'000'000));
  command->add_flag("-f,--follow", options->follow,
                    "Waits for more lines until the job ends; Ctrl-C stops reading, not the job "
                    "(default: off)");
  AddServerOptions(command, &options->server,
                   "table, or jsonl for one object a line (default: table)");
  Choose(command, options, RunLogs, context, selection);
}

void AddList(CLI::App* app, const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<ListJobsOptions>();
  CLI::App* command = app->add_subcommand("list", R"(Example:
  latentforge job list --state running --label team=search

Lists jobs, newest first.)");
  command
      ->add_option(
          "--state", options->states,
          absl::StrCat(EnumChoices(*v1::JobState_descriptor()), "; repeatable (default: all)"))
      ->allow_extra_args(false);
  command
      ->add_option("--label", options->labels,
                   "KEY=VALUE; repeatable, all must match (default: all)")
      ->allow_extra_args(false);
  command->add_option("--tenant", options->tenant,
                      "Jobs of this tenant alone; admins see every one (default: all you see)");
  command->add_option("--page-size", options->page_size, "Most jobs in a page (default: 50)")
      ->check(Integer(1, 1000));
  command->add_option("--page-token", options->page_token, "The page to show (default: the first)");
  command->add_flag("--all", options->all, "Shows every page (default: off)");
  AddServerOptions(command, &options->server, kOneJobFormats);
  Choose(command, options, RunListJobs, context, selection);
}

void AddOneJob(CLI::App* app, const std::string& verb, const std::string& help,
               absl::Status (*run)(const OneJobOptions&, const CommandContext&),
               const CommandContext& context, Selection* selection) {
  auto options = std::make_shared<OneJobOptions>();
  CLI::App* command = app->add_subcommand(
      verb, absl::StrCat("Example:\n  latentforge job ", verb, " jobs/1234\n\n", help));
  command->add_option("JOB", options->job, "Name of the job")->required();
  AddServerOptions(command, &options->server, kOneJobFormats);
  Choose(command, options, run, context, selection);
}

}  // namespace

void AddServerOptions(CLI::App* app, ServerOptions* options, const std::string& formats) {
  app->add_option("--server", options->server,
                  absl::StrCat("HOST:PORT or unix:/PATH (default: $LATENTFORGE_SERVER, else ",
                               kDefaultServer, ")"))
      ->type_name("ADDRESS");
  app->add_option(
         "--tls-ca", options->tls_ca,
         "Certificates (PEM) that vouch for the server (default: $LATENTFORGE_TLS_CA, else "
         "the system's; none of these flags: no TLS)")
      ->type_name("FILE");
  app->add_option("--tls-cert", options->tls_cert,
                  "Your certificate (PEM) (default: $LATENTFORGE_TLS_CERT)")
      ->type_name("FILE");
  app->add_option("--tls-key", options->tls_key, "Its key (PEM) (default: $LATENTFORGE_TLS_KEY)")
      ->type_name("FILE");
  app->add_option("--tls-server-name", options->tls_server_name,
                  "Name in the server's certificate (default: $LATENTFORGE_TLS_SERVER_NAME, else "
                  "that of --server)")
      ->type_name("NAME");
  app->add_option("--token-file", options->token_file,
                  "File that holds your token alone (default: $LATENTFORGE_TOKEN_FILE)")
      ->type_name("FILE");
  app->add_option("-o,--output", options->output, formats)->type_name("FORMAT");
}

void AddJobCommands(CLI::App* app, const CommandContext& context, Selection* selection) {
  CLI::App* job = app->add_subcommand("job", R"(Example:
  latentforge job list --state running

Submits and follows jobs on a server.)");
  job->require_subcommand(1);
  AddSubmit(job, context, selection);
  AddOneJob(job, "get", "Shows one job.", RunGetJob, context, selection);
  AddList(job, context, selection);
  AddWatch(job, context, selection);
  AddLogs(job, context, selection);
  AddOneJob(job, "cancel", "Asks for cancellation; a job that has ended stays as it is.",
            RunCancelJob, context, selection);
  AddOneJob(job, "pause",
            "Takes a job from the queue, or stops it between two steps and keeps what is finished; "
            "its deadlines go on.",
            RunPauseJob, context, selection);
  AddOneJob(job, "resume", "Queues a paused job again; it goes on from its last finished step.",
            RunResumeJob, context, selection);
  AddOneJob(job, "retry",
            "Queues a job that failed or was cancelled again, with as many attempts as a new one.",
            RunRetryJob, context, selection);
  AddOneJob(
      job, "attempts",
      "Lists a job's attempts: worker, times, how each ended, and the phases that it finished.",
      RunListAttempts, context, selection);
  AddOneJob(job, "delete", "Deletes a job that has ended; its artifact stays.", RunDeleteJob,
            context, selection);
}

}  // namespace latentforge::client
