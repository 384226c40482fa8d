#include "checkpoint/tokenizer_file.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/folder.h"

namespace latentforge::checkpoint {
namespace {

// Follows the outer two levels of a document and drops all values: a vocabulary as
// a tree of values takes ten times the room of its text.
class Outline final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Value("null"); }
  bool boolean(bool) override { return Value("a boolean"); }
  bool number_integer(number_integer_t) override { return Value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return Value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return Value("a number"); }
  bool string(string_t&) override { return Value("a string"); }
  bool binary(binary_t&) override { return Value("binary"); }
  bool start_object(size_t) override { return Open("an object"); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open("an array"); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (depth_ == 1) at_model_ = name == "model";
    if (depth_ == 2 && at_model_) at_vocab_ = name == "vocab";
    return true;
  }

  bool parse_error(size_t position, const std::string& token, const Json::exception&) override {
    error_ = absl::StrCat("is no valid JSON: syntax error at byte ", position, " near \"",
                          absl::CHexEscape(token.substr(0, 40)), "\"");
    return false;
  }

  // What is wrong once the whole document was read; empty when nothing is.
  std::string Problem() const {
    if (!error_.empty()) return error_;
    if (root_ != "an object") return absl::StrCat("holds ", root_, ", expected a JSON object");
    if (model_.empty()) return "lacks \"model\", expected an object that holds the vocabulary";
    if (model_ != "an object")
      return absl::StrCat("has ", model_, " as \"model\", expected an object");
    if (vocab_.empty()) return "lacks the \"vocab\" of its \"model\"";
    if (vocab_ != "an object" && vocab_ != "an array")
      return absl::StrCat("has ", vocab_,
                          " as \"vocab\" of its \"model\", expected an object or an array");
    return "";
  }

 private:
  bool Value(const char* kind) {
    if (depth_ == 0) root_ = kind;
    if (depth_ == 1 && at_model_) model_ = kind;
    if (depth_ == 2 && at_model_ && at_vocab_) vocab_ = kind;
    return true;
  }
  bool Open(const char* kind) {
    Value(kind);
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    if (depth_ == 1) at_vocab_ = false;
    return true;
  }

  int depth_ = 0;
  bool at_model_ = false;
  bool at_vocab_ = false;
  std::string root_;
  std::string model_;
  std::string vocab_;
  std::string error_;
};

}  // namespace

absl::Status CheckTokenizerJson(absl::string_view json_text) {
  Outline outline;
  // A refusal leaves its cause in the outline.
  static_cast<void>(Json::sax_parse(json_text.begin(), json_text.end(), &outline));
  const std::string problem = outline.Problem();
  if (problem.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(kTokenizerFile, " ", problem));
}

absl::Status CheckTokenizerFile(const std::filesystem::path& dir) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadTextInFolder(dir, kTokenizerFile));
  return Annotate(CheckTokenizerJson(text), dir.string());
}

}  // namespace latentforge::checkpoint
