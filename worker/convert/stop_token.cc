#include "worker/convert/stop_token.h"

#include <csignal>

namespace latentforge::convert {
namespace {

void OnSignal(int) { SignalStopToken().Request(); }

}  // namespace

StopToken& SignalStopToken() {
  static StopToken token;
  return token;
}

void InstallStopSignals() {
  SignalStopToken();  // made before a handler can need it
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

}  // namespace latentforge::convert
