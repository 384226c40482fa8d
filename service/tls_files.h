// The files behind the server's TLS.
#pragma once

#include <filesystem>

namespace latentforge::service {

// All PEM. A plain value; without a certificate there is no TLS.
struct TlsFiles {
  std::filesystem::path certificate;  // followed by those that vouch for it
  std::filesystem::path key;
  std::filesystem::path client_ca;  // who vouches for clients; empty: clients show none
};

}  // namespace latentforge::service
