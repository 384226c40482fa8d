#include "client/commands/auth.h"

#include <memory>

#include "client/auth_run.h"

namespace latentforge::client {

void AddAuthCommands(CLI::App* app, const CommandContext& context, Selection* selection) {
  CLI::App* auth = app->add_subcommand("auth", R"(Example:
  latentforge auth new-token --subject alice --tenant search --out alice.token

Makes tokens for the callers of a server.)");
  auth->require_subcommand(1);
  auto options = std::make_shared<NewTokenOptions>();
  CLI::App* command = auth->add_subcommand("new-token", R"(Example:
  latentforge auth new-token --subject alice --tenant search --out alice.token >> tokens

Writes a new token to a file for --token-file, and prints the line that the server's
own --token-file needs: the token's digest, subject, tenant and role.)");
  command->add_option("--subject", options->subject, "Who gets it (required)")->required();
  command->add_option("--tenant", options->tenant, "Whose jobs it is for (required)")->required();
  command->add_option("--role", options->role, "user, worker or admin (default: user)")
      ->check(CLI::IsMember({"user", "worker", "admin"}));
  command->add_option("--out", options->out, "File for the token; must not exist (required)")
      ->required()
      ->type_name("FILE");
  command->callback([options, &context, selection] {
    selection->command = [options, &context] { return RunNewToken(*options, context); };
  });
}

}  // namespace latentforge::client
