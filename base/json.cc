#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/suggest.h"

namespace latentforge {
namespace {

// Builds the value and stops at the first thing that strict JSON has no room for.
class StrictHandler final : public nlohmann::json_sax<Json> {
 public:
  explicit StrictHandler(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    // The library turns integers beyond 64 bits into doubles.
    if (text.find_first_of(".eE") == string_t::npos) {
      return Fail(absl::StrCat("integer ", text.substr(0, 40), " does not fit 64 bits"));
    }
    if (!std::isfinite(value))
      return Fail(absl::StrCat("number ", text.substr(0, 40), " is too large"));
    return Add(value);
  }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(size_t) override { return Open(Json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) {
      return Fail(absl::StrCat("duplicate key \"", name.substr(0, 100), "\""));
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string& token, const Json::exception&) override {
    return Fail(absl::StrCat("syntax error at byte ", position, " near \"",
                             absl::CHexEscape(token.substr(0, 40)), "\""));
  }

  Json Take() { return std::move(root_); }
  const std::string& error() const { return error_; }

 private:
  Json* Place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(Json value) {
    if (static_cast<int>(stack_.size()) >= max_depth_) {
      return Fail(absl::StrCat("nested deeper than ", max_depth_, " levels"));
    }
    stack_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    stack_.pop_back();
    return true;
  }
  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }

  const int max_depth_;
  Json root_;
  std::vector<Json*> stack_;
  std::string key_;
  std::string error_;
};

constexpr size_t kMostNamedKeys = 12;  // more would hide the rest of a message

std::string Shorten(const Json& value) {
  std::string text = WriteJson(value);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes, expected at most ", limits.max_bytes));
  }
  StrictHandler handler(limits.max_depth);
  if (!Json::sax_parse(text.begin(), text.end(), &handler)) {
    return absl::InvalidArgumentError(absl::StrCat("invalid JSON: ", handler.error()));
  }
  return handler.Take();
}

std::string WriteJson(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<JsonObject> JsonObject::Create(const Json& value, absl::string_view what) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is ", Shorten(value), ", expected a JSON object"));
  }
  return JsonObject(value, what);
}

const Json* JsonObject::Find(absl::string_view key) const {
  const auto found = value_->find(std::string(key));
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

bool JsonObject::Has(absl::string_view key) const { return Find(key) != nullptr; }

absl::Status JsonObject::Wrong(absl::string_view key, absl::string_view expected) const {
  const Json* value = Find(key);
  if (value == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(what_, " lacks \"", key, "\", expected ", expected));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what_, ": \"", key, "\" is ", Shorten(*value), ", expected ", expected));
}

absl::StatusOr<int64_t> JsonObject::Int(absl::string_view key, int64_t min, int64_t max) const {
  const Json* value = Find(key);
  const std::string expected = absl::StrCat("an integer from ", min, " to ", max);
  if (value == nullptr || !value->is_number_integer()) return Wrong(key, expected);
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return Wrong(key, expected);
  }
  const int64_t number = value->get<int64_t>();
  if (number < min || number > max) return Wrong(key, expected);
  return number;
}

absl::StatusOr<int64_t> JsonObject::IntOr(absl::string_view key, int64_t min, int64_t max,
                                          int64_t fallback) const {
  if (!Has(key)) return fallback;
  return Int(key, min, max);
}

absl::StatusOr<double> JsonObject::Number(absl::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_number()) return Wrong(key, "a number");
  return value->get<double>();
}

absl::StatusOr<double> JsonObject::NumberOr(absl::string_view key, double fallback) const {
  if (!Has(key)) return fallback;
  return Number(key);
}

absl::StatusOr<bool> JsonObject::BoolOr(absl::string_view key, bool fallback) const {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Wrong(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonObject::String(absl::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_string()) return Wrong(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::string> JsonObject::StringOr(absl::string_view key,
                                                 absl::string_view fallback) const {
  if (!Has(key)) return std::string(fallback);
  return String(key);
}

absl::StatusOr<JsonObject> JsonObject::Object(absl::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_object()) return Wrong(key, "an object");
  return JsonObject(*value, absl::StrCat(what_, ": ", key));
}

absl::Status JsonObject::RejectUnknownKeys(const std::vector<std::string>& known) const {
  for (const auto& [key, value] : value_->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const bool few = !known.empty() && known.size() <= kMostNamedKeys;
    return absl::InvalidArgumentError(
        absl::StrCat(what_, " has the unknown key ", Shorten(key),
                     few ? absl::StrCat(", expected one of ", absl::StrJoin(known, ", ")) : "",
                     DidYouMean(key, known)));
  }
  return absl::OkStatus();
}

}  // namespace latentforge
