// latentforge: the command line of the service.
#include <unistd.h>

#include "base/clock.h"
#include "client/app.h"
#include "client/interrupt.h"
#include "client/spec_flags.h"
#include "client/terminal.h"

int main(int argc, char** argv) {
  using namespace latentforge;  // NOLINT: nothing else is declared here
  client::InstallInterruptHandlers();
  client::FdTerminal terminal(STDERR_FILENO, client::GetProcessEnvironment);
  const client::CommandContext context{terminal, RealClock(), client::LocalFileAccess(),
                                       client::GetProcessEnvironment};
  return client::RunApp(argc, argv, context);
}
