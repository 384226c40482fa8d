// What goes to PostgreSQL with a statement, and what comes back: in its binary format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

struct pg_result;

namespace latentforge::service {

// Values for $1, $2, … in order. A plain value.
class PgParams {
 public:
  PgParams& Bind(int64_t value);
  PgParams& Bind(double value);
  PgParams& Bind(absl::Time value);  // microseconds since the epoch
  PgParams& BindText(absl::string_view value);
  PgParams& BindBlob(absl::string_view value);
  // Of which nothing is known, not even that it is UTF-8.
  PgParams& BindOutsideText(absl::string_view value) { return BindBlob(value); }
  PgParams& BindNull();  // of a number or a time
  // Arrays.
  PgParams& BindInts(const std::vector<int64_t>& values);
  PgParams& BindTexts(const std::vector<std::string>& values);
  PgParams& BindBlobs(const std::vector<std::string>& values);

  int size() const { return static_cast<int>(values_.size()); }

 private:
  friend class PgConnection;
  PgParams& Add(unsigned type, std::string value);

  struct Value {
    unsigned type = 0;
    bool null = false;
    std::string bytes;
  };
  std::vector<Value> values_;
};

// What a statement gave, held in memory. Next until false; read columns in order.
class PgRows {
 public:
  bool Next();

  // The next column of the row.
  int64_t Int();
  double Double();
  std::string Text();
  std::string Blob() { return Text(); }
  absl::Time Time();
  bool NextIsNull() const;

  // Rows that the statement returned, or changed.
  int64_t count() const;

 private:
  friend class PgConnection;
  struct Clearer {
    void operator()(pg_result* result) const;
  };
  explicit PgRows(pg_result* result) : result_(result) {}

  std::unique_ptr<pg_result, Clearer> result_;
  int row_ = -1;
  int column_ = 0;
};

}  // namespace latentforge::service
