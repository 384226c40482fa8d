#include "service/store/postgres_values.h"

#include <libpq-fe.h>

#include <bit>
#include <cstdlib>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace latentforge::service {
namespace {

// Of pg_type, where they are the same for ever.
constexpr unsigned kBlob = 17;
constexpr unsigned kInt = 20;
constexpr unsigned kText = 25;
constexpr unsigned kDouble = 701;
constexpr unsigned kBlobs = 1001;
constexpr unsigned kTexts = 1009;
constexpr unsigned kInts = 1016;

std::string BigEndian(uint64_t value, int size) {
  std::string bytes(size, '\0');
  for (int i = size - 1; i >= 0; --i, value >>= 8) bytes[i] = static_cast<char>(value & 0xFF);
  return bytes;
}

std::string Number(int64_t value) { return BigEndian(static_cast<uint64_t>(value), 8); }

// Of 2, 4 or 8 bytes, with the sign.
int64_t FromBigEndian(absl::string_view bytes) {
  if (bytes.empty()) return 0;
  int64_t value = static_cast<signed char>(bytes[0]);
  for (const char byte : bytes.substr(1)) value = value * 256 + static_cast<unsigned char>(byte);
  return value;
}

// One dimension without NULLs, counted from 1; none where it is empty.
template <typename Value, typename ToBytes>
std::string ArrayOf(unsigned type, const std::vector<Value>& values, ToBytes to_bytes) {
  std::string array =
      absl::StrCat(BigEndian(values.empty() ? 0 : 1, 4), BigEndian(0, 4), BigEndian(type, 4));
  if (!values.empty()) absl::StrAppend(&array, BigEndian(values.size(), 4), BigEndian(1, 4));
  for (const Value& value : values) {
    const std::string bytes = to_bytes(value);
    absl::StrAppend(&array, BigEndian(bytes.size(), 4), bytes);
  }
  return array;
}

}  // namespace

PgParams& PgParams::Add(unsigned type, std::string value) {
  values_.push_back({type, false, std::move(value)});
  return *this;
}

PgParams& PgParams::Bind(int64_t value) { return Add(kInt, Number(value)); }

PgParams& PgParams::Bind(double value) {
  return Add(kDouble, BigEndian(std::bit_cast<uint64_t>(value), 8));
}

PgParams& PgParams::Bind(absl::Time value) { return Bind(absl::ToUnixMicros(value)); }

PgParams& PgParams::BindText(absl::string_view value) { return Add(kText, std::string(value)); }

PgParams& PgParams::BindBlob(absl::string_view value) { return Add(kBlob, std::string(value)); }

PgParams& PgParams::BindNull() {
  values_.push_back({kInt, true, ""});
  return *this;
}

PgParams& PgParams::BindInts(const std::vector<int64_t>& values) {
  return Add(kInts, ArrayOf(kInt, values, Number));
}

PgParams& PgParams::BindTexts(const std::vector<std::string>& values) {
  return Add(kTexts, ArrayOf(kText, values, std::identity()));
}

PgParams& PgParams::BindBlobs(const std::vector<std::string>& values) {
  return Add(kBlobs, ArrayOf(kBlob, values, std::identity()));
}

void PgRows::Clearer::operator()(pg_result* result) const { PQclear(result); }

bool PgRows::Next() {
  column_ = 0;
  return ++row_ < PQntuples(result_.get());
}

std::string PgRows::Text() {
  const int column = column_++;
  return std::string(PQgetvalue(result_.get(), row_, column),
                     PQgetlength(result_.get(), row_, column));
}

int64_t PgRows::Int() { return FromBigEndian(Text()); }

double PgRows::Double() { return std::bit_cast<double>(Int()); }

absl::Time PgRows::Time() { return absl::FromUnixMicros(Int()); }

bool PgRows::NextIsNull() const { return PQgetisnull(result_.get(), row_, column_) != 0; }

int64_t PgRows::count() const { return std::strtoll(PQcmdTuples(result_.get()), nullptr, 10); }

}  // namespace latentforge::service
