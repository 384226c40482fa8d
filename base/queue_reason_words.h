// How the reason begins for which a queued job waits for its own tenant's jobs, and not for a
// worker. One place for the server, which gives the reason, and the command line, which says what
// to do.
#pragma once

namespace latentforge {

inline constexpr char kTenantLimitReason[] = "tenant ";

}  // namespace latentforge
