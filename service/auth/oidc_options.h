// What the server knows of an OpenID Connect provider.
#pragma once

#include <filesystem>
#include <string>

#include "absl/time/time.h"

namespace latentforge::service {

// A plain value. Without an issuer there is no provider.
struct OidcOptions {
  std::string issuer;
  std::string audience;
  std::string jwks;               // file or https: URL of the provider's keys
  std::filesystem::path ca_file;  // who signs that URL's certificate; empty: the system's list
  // Claims that hold tenant and role: a name, or names of nested objects joined by dots
  // ("realm_access.roles"). A list of roles counts as the highest that is one of ours.
  std::string tenant_claim = "tenant";
  std::string role_claim = "role";
  absl::Duration leeway = absl::Seconds(30);  // between our clock and the provider's
};

}  // namespace latentforge::service
