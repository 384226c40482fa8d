#include "service/text_check.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/utf8.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLookedAtBytes = size_t{1} << 20;
constexpr size_t kLongestCharacter = 4;
// Normalisation makes at most eleven bytes of one (NFKC: three of U+FDFA become 33), and bytes
// make a token each at most.
constexpr int64_t kMostTokensPerByte = 16;
// Of a larger text no more is read (worker/calibrate/corpus.h).
constexpr int64_t kMostBytes = int64_t{32} << 20;

// 0 where the file has gone.
int64_t MostTokens(const v1::CorpusSpec& corpus) {
  const absl::StatusOr<fs::path> path = PathFromUri(corpus.uri());
  if (!path.ok()) return 0;
  std::error_code error;
  const uintmax_t bytes = fs::file_size(*path, error);
  if (error) return 0;
  return kMostTokensPerByte *
         static_cast<int64_t>(std::min(bytes, static_cast<uintmax_t>(kMostBytes)));
}

void Compare(int64_t wanted, int64_t most, const char* field, const char* what,
             Findings& findings) {
  if (wanted <= most) return;
  findings.Add("TOO_FEW_TOKENS", field,
               absl::StrCat("asks for ", wanted, " tokens of ", what, ", which can hold ", most,
                            " at most (", kMostTokensPerByte, " a byte)"));
}

}  // namespace

void CheckIsText(const fs::path& path, const std::string& field, Findings& findings) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kLookedAtBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const size_t valid = ValidUtf8Prefix(text);
  // A character may go on behind what was read.
  const bool cut = text.size() == kLookedAtBytes && text.size() - valid < kLongestCharacter;
  if (valid == text.size() || cut) return;
  findings.Add("MALFORMED_CORPUS", field,
               absl::StrFormat("%s: byte %d is 0x%02x, which is not UTF-8", path.string(), valid,
                               static_cast<uint8_t>(text[valid])));
}

void CheckTextsSuffice(const v1::JobSpec& spec, Findings& findings) {
  const v1::CalibrationSpec& calibration = spec.calibration();
  int64_t wanted = int64_t{calibration.sequences()} * calibration.sequence_length();
  int64_t most = 0;
  for (const v1::CorpusSpec& corpus : calibration.corpora()) most += MostTokens(corpus);
  const int64_t windows = int64_t{spec.evaluation().windows()} * spec.evaluation().window_length();
  if (spec.evaluation().corpus().uri().empty()) {
    wanted += windows;  // held back from the calibration texts
  } else {
    Compare(windows, MostTokens(spec.evaluation().corpus()), "spec.evaluation.windows",
            "the evaluation text", findings);
  }
  Compare(wanted, most, "spec.calibration.sequences", "the calibration texts", findings);
}

}  // namespace latentforge::service
