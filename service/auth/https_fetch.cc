#include "service/auth/https_fetch.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/str_cat.h"

namespace latentforge::service {
namespace {

struct Cleanup {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};

struct Body {
  std::string text;
  size_t max_bytes = 0;
};

// Told fewer bytes than it has, curl gives up.
size_t Append(char* data, size_t size, size_t count, void* target) {
  Body& body = *static_cast<Body*>(target);
  if (size * count > body.max_bytes - body.text.size()) return 0;
  body.text.append(data, size * count);
  return size * count;
}

}  // namespace

absl::StatusOr<std::string> FetchHttps(const std::string& url, const FetchOptions& options) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, Cleanup> curl(initialised == CURLE_OK ? curl_easy_init() : nullptr);
  if (curl == nullptr) return absl::InternalError("libcurl does not start");
  Body body{.max_bytes = options.max_bytes};
  char error[CURL_ERROR_SIZE] = {};
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(options.timeout)));
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
  if (!options.ca_file.empty())
    curl_easy_setopt(curl.get(), CURLOPT_CAINFO, options.ca_file.c_str());
  const CURLcode code = curl_easy_perform(curl.get());
  if (code == CURLE_WRITE_ERROR)
    return absl::OutOfRangeError(absl::StrCat(url, " has more than ", options.max_bytes, " bytes"));
  if (code != CURLE_OK)
    return absl::UnavailableError(
        absl::StrCat("fetching ", url, ": ", error[0] == '\0' ? curl_easy_strerror(code) : error));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status == 200) return std::move(body.text);
  return absl::UnavailableError(
      absl::StrCat("fetching ", url, ": the server answered ", status, ", expected 200"));
}

}  // namespace latentforge::service
