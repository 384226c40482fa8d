// latentforge: the command line of the service.
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "base/clock.h"
#include "base/standard_descriptors.h"
#include "client/app.h"
#include "client/interrupt.h"
#include "client/program_name.h"
#include "client/spec_flags.h"
#include "client/terminal.h"

int main(int argc, char** argv) {
  using namespace latentforge;  // NOLINT: nothing else is declared here
  HoldStandardDescriptors();
  client::InstallInterruptHandlers();
  client::FdTerminal terminal(STDERR_FILENO, client::GetProcessEnvironment);
  const auto same = [](const std::filesystem::path& a, const std::filesystem::path& b) {
    std::error_code error;
    return std::filesystem::equivalent(a, b, error);
  };
  const client::CommandContext context{
      terminal, RealClock(), client::LocalFileAccess(), client::GetProcessEnvironment,
      client::NameToCall(argv[0], client::GetProcessEnvironment("PATH").value_or(""), same)};
  return client::RunApp(argc, argv, context);
}
