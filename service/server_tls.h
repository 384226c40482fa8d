// TLS for the server's ports.
#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/status.h"
#include "grpcpp/security/server_credentials.h"
#include "service/auth/authenticator.h"
#include "service/tls_files.h"

namespace latentforge::service {

// What the files have to be: certificates and a key (PEM) that fit together.
// InvalidArgument and the errors of ReadFile name the file.
absl::Status CheckTlsFiles(const TlsFiles& files);

// Credentials of ports that speak TLS 1.2 or newer. The files are read again every
// second: new connections get a new certificate, old ones stay. With client_ca a client
// may show a certificate, which then must be good. Methods that gRPC serves itself
// (reflection) are guarded too. Borrows the authenticator, which must outlive the server.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsFiles& files,
                                                            const Authenticator& authenticator);

}  // namespace latentforge::service
