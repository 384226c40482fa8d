#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/safetensors.h"

namespace latentforge::checkpoint {
namespace {

constexpr size_t kMaxDimensions = 16;
constexpr char kMetadataKey[] = "__metadata__";

std::string Quoted(absl::string_view name) {
  return absl::StrCat("\"", name.substr(0, 200), name.size() > 200 ? "..." : "", "\"");
}

bool HasForbiddenByte(absl::string_view name) {
  return std::any_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f || byte == '/';
  });
}

// Takes the header's JSON as it is read, so that a million tensors need no tree.
// Knows the one shape that a header has and stops at anything else.
class HeaderHandler final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderHandler(SafetensorsHeader& header) : header_(header) {}

  const std::string& error() const { return error_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", text.substr(0, 40)));
  }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) return AddDimension(value);
    if (place_ != Place::kOffsets) return Unexpected(absl::StrCat("the number ", value));
    if (offsets_ == 2) return Fail("\"data_offsets\" has more than two numbers");
    (offsets_ == 0 ? tensor_.begin : tensor_.end) = value;
    ++offsets_;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[std::move(key_)] = std::move(value);
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return Unexpected("a string");
    const absl::StatusOr<DType> dtype = ParseDType(value);
    if (!dtype.ok()) return Fail(std::string(dtype.status().message()));
    tensor_.dtype = *dtype;
    return true;
  }
  bool binary(binary_t&) override { return Unexpected("a binary value"); }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop && key_ == kMetadataKey) {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kTop) {
      place_ = Place::kTensor;
      tensor_ = TensorEntry();
      tensor_.name = std::move(key_);
      seen_ = 0;
    } else {
      return Unexpected("an object");
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (seen_ != (kDtypeSeen | kShapeSeen | kOffsetsSeen)) {
        return Fail("lacks one of \"dtype\", \"shape\", \"data_offsets\"");
      }
      header_.tensors.push_back(std::move(tensor_));
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return Unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    offsets_ = 0;
    return true;
  }
  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_ != 2) {
      return Fail(absl::StrCat("\"data_offsets\" has ", offsets_, " numbers, expected 2"));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    key_ = std::move(name);
    if (place_ == Place::kTop) return CheckTensorName();
    if (place_ == Place::kMetadata) {
      return header_.metadata.count(key_) == 0 || Fail("duplicate key " + Quoted(key_));
    }
    const int field = key_ == "dtype"          ? kDtypeSeen
                      : key_ == "shape"        ? kShapeSeen
                      : key_ == "data_offsets" ? kOffsetsSeen
                                               : 0;
    if (field == 0) return Fail("unknown key " + Quoted(key_));
    if ((seen_ & field) != 0) return Fail("duplicate key " + Quoted(key_));
    seen_ |= field;
    return true;
  }

  bool parse_error(size_t position, const std::string& token, const Json::exception&) override {
    return Fail(absl::StrCat("syntax error at byte ", position, " near \"",
                             absl::string_view(token).substr(0, 40), "\""));
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  static constexpr int kDtypeSeen = 1;
  static constexpr int kShapeSeen = 2;
  static constexpr int kOffsetsSeen = 4;

  bool AddDimension(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat("dimension ", value, " is too large"));
    }
    if (tensor_.shape.size() == kMaxDimensions) {
      return Fail(absl::StrCat("has more than ", kMaxDimensions, " dimensions"));
    }
    tensor_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }

  // Names go into messages and logs; none of ours has such bytes.
  bool CheckTensorName() {
    if (key_ == kMetadataKey) {
      return !std::exchange(metadata_seen_, true) || Fail("duplicate key \"__metadata__\"");
    }
    if (key_.empty()) return Fail("a tensor has an empty name");
    if (HasForbiddenByte(key_)) {
      return Fail("a tensor's name has a control character or '/' in it");
    }
    return true;
  }

  bool Unexpected(absl::string_view what) {
    return Fail(absl::StrCat("unexpected ", what, key_.empty() ? "" : " at key ",
                             key_.empty() ? "" : Quoted(key_)));
  }
  bool Fail(std::string message) {
    const bool in_tensor =
        place_ == Place::kTensor || place_ == Place::kShape || place_ == Place::kOffsets;
    error_ = in_tensor ? absl::StrCat("tensor ", Quoted(tensor_.name), ": ", message)
                       : std::move(message);
    return false;
  }

  SafetensorsHeader& header_;
  Place place_ = Place::kStart;
  TensorEntry tensor_;
  std::string key_;
  int seen_ = 0;
  int offsets_ = 0;
  bool metadata_seen_ = false;
  std::string error_;
};

// Bytes that a tensor of this type and shape takes. The product leaves zeros out,
// so that [2^40, 2^40, 0] is refused whatever the order of its dimensions.
absl::StatusOr<uint64_t> SpanOf(const TensorEntry& tensor) {
  int64_t elements = 1;
  bool empty = false;
  bool overflow = false;
  for (const int64_t dimension : tensor.shape) {
    empty |= dimension == 0;
    if (dimension != 0) overflow |= __builtin_mul_overflow(elements, dimension, &elements);
  }
  int64_t bits = 0;
  overflow |= __builtin_mul_overflow(elements, BitsOf(tensor.dtype), &bits);
  if (overflow) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor.name), ": shape ",
                                                   ShapeText(tensor.shape),
                                                   " has too many elements"));
  }
  if (empty) return 0;
  if (bits % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor.name), ": ",
                                                   ShapeText(tensor.shape), " of ",
                                                   NameOf(tensor.dtype), " fills no whole bytes"));
  }
  return static_cast<uint64_t>(bits / 8);
}

absl::Status CheckUniqueNames(const std::vector<TensorEntry>& tensors) {
  absl::flat_hash_set<absl::string_view> names;
  names.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError("duplicate tensor " + Quoted(tensor.name));
    }
  }
  return absl::OkStatus();
}

// The tensors, sorted by offset, have to tile [0, data_bytes) exactly.
absl::Status CheckLayout(const std::vector<TensorEntry>& tensors, uint64_t data_bytes) {
  uint64_t position = 0;
  for (const TensorEntry& tensor : tensors) {
    const auto wrong = [&tensor](const auto&... parts) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor.name),
                                                     ": data_offsets [", tensor.begin, ", ",
                                                     tensor.end, "] ", parts...));
    };
    if (tensor.begin > tensor.end) return wrong("end before they begin");
    if (tensor.end > data_bytes) return wrong("lie beyond the ", data_bytes, " bytes of data");
    LF_ASSIGN_OR_RETURN(const uint64_t span, SpanOf(tensor));
    if (tensor.end - tensor.begin != span) {
      return wrong("hold ", tensor.end - tensor.begin, " bytes, expected ", span, " for ",
                   ShapeText(tensor.shape), " of ", NameOf(tensor.dtype));
    }
    if (tensor.begin < position)
      return wrong("overlap the tensor before, which ends at ", position);
    if (tensor.begin > position) return wrong("leave a hole after ", position);
    position = tensor.end;
  }
  if (position != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("the tensors end at byte ", position, " of ",
                                                   data_bytes,
                                                   " bytes of data; expected no trailing bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> HeaderLength(absl::string_view prefix, uint64_t file_size) {
  if (file_size < 8 || prefix.size() < 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("safetensors file of ", file_size, " bytes, expected at least 8"));
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(prefix[i]);
  if (length < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("safetensors header of ", length, " bytes, expected at least 2"));
  }
  if (length > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "safetensors header of ", length, " bytes, expected at most ", kMaxSafetensorsHeaderBytes));
  }
  if (length > file_size - 8) {
    return absl::InvalidArgumentError(absl::StrCat("safetensors header of ", length,
                                                   " bytes in a file of ", file_size, " bytes"));
  }
  return length;
}

}  // namespace

std::string ShapeText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

int64_t TensorEntry::num_elements() const {
  int64_t elements = 1;
  for (const int64_t dimension : shape) {
    // Wraps nowhere: without a zero the parser has checked the product.
    if (dimension == 0) return 0;
  }
  for (const int64_t dimension : shape) elements *= dimension;
  return elements;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view prefix,
                                                         uint64_t file_size) {
  LF_ASSIGN_OR_RETURN(const uint64_t length, HeaderLength(prefix, file_size));
  if (prefix.size() - 8 < length) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", prefix.size() - 8, " bytes of a header of ", length));
  }
  const absl::string_view text = prefix.substr(8, length);
  if (text[0] != '{') {
    return absl::InvalidArgumentError("safetensors header does not begin with '{'");
  }
  SafetensorsHeader header;
  header.data_begin = 8 + length;
  HeaderHandler handler(header);
  if (!Json::sax_parse(text.data(), text.data() + text.size(), &handler)) {
    return absl::InvalidArgumentError("safetensors header: " + handler.error());
  }
  LF_RETURN_IF_ERROR(Annotate(CheckUniqueNames(header.tensors), "safetensors header"));
  const auto by_offset = [](const TensorEntry& a, const TensorEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  };
  // Writers sort by offset; a million entries are then moved for nothing.
  if (!std::is_sorted(header.tensors.begin(), header.tensors.end(), by_offset)) {
    std::sort(header.tensors.begin(), header.tensors.end(), by_offset);
  }
  LF_RETURN_IF_ERROR(
      Annotate(CheckLayout(header.tensors, file_size - header.data_begin), "safetensors header"));
  return header;
}

}  // namespace latentforge::checkpoint
