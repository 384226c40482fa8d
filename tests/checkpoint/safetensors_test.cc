#include "checkpoint/safetensors.h"

#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<SafetensorsHeader> Parse(absl::string_view header, absl::string_view data) {
  const std::string bytes = SafetensorsBytes(header, data);
  return ParseSafetensorsHeader(bytes, bytes.size());
}

std::string ParseError(absl::string_view header, absl::string_view data = "") {
  const absl::StatusOr<SafetensorsHeader> parsed = Parse(header, data);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << header.substr(0, 200);
  return std::string(parsed.status().message());
}

std::string Tensor(absl::string_view name, absl::string_view shape, absl::string_view offsets,
                   absl::string_view dtype = "F32") {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":", offsets, "}");
}

std::string LengthPrefix(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return bytes;
}

TEST(ParseSafetensorsHeaderTest, ReadsTensorsInTheOrderOfTheirOffsets) {
  const absl::StatusOr<SafetensorsHeader> header =
      Parse(absl::StrCat("{", Tensor("b", "[2,3]", "[4,28]"), R"(,"__metadata__":{"format":"pt"},)",
                         Tensor("none", "[0,7]", "[4,4]"), ",", Tensor("a", "[]", "[0,4]"), "}   "),
            std::string(28, 'x'));
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_EQ(header->tensors[0].num_elements(), 1);
  EXPECT_EQ(header->tensors[1].name, "none");
  EXPECT_EQ(header->tensors[1].num_elements(), 0);
  EXPECT_EQ(header->tensors[2].name, "b");
  EXPECT_EQ(header->tensors[2].shape, (Shape{2, 3}));
  EXPECT_EQ(header->tensors[2].end, 28u);
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(ParseSafetensorsHeaderTest, ReadsEveryTypeOfTheFormat) {
  for (const char* name :
       {"BOOL", "U8",   "I8",      "F8_E5M2", "F8_E4M3",     "F8_E8M0",    "I16", "U16",
        "F16",  "BF16", "I32",     "U32",     "F32",         "C64",        "F64", "I64",
        "U64",  "F4",   "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}) {
    const absl::StatusOr<DType> dtype = ParseDType(name);
    ASSERT_TRUE(dtype.ok()) << name;
    EXPECT_EQ(NameOf(*dtype), name);
    const int64_t bytes = BitsOf(*dtype);  // of 8 elements
    const std::string header =
        absl::StrCat("{", Tensor("t", "[8]", absl::StrCat("[0,", bytes, "]"), name), "}");
    EXPECT_TRUE(Parse(header, std::string(static_cast<size_t>(bytes), 'x')).ok()) << name;
  }
}

TEST(ParseSafetensorsHeaderTest, RefusesEveryBadLength) {
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{100'000'001},
                                uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    const std::string bytes = absl::StrCat(LengthPrefix(length), "{}");
    const absl::Status status = ParseSafetensorsHeader(bytes, bytes.size()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << length;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("header of ", length)));
  }
  // Above 100 MB, although the file is long enough.
  EXPECT_THAT(
      std::string(
          ParseSafetensorsHeader(LengthPrefix(100'000'001), uint64_t{1} << 40).status().message()),
      HasSubstr("expected at most 100000000"));
  for (const absl::string_view bytes : {"", "1234567"}) {
    EXPECT_THAT(std::string(ParseSafetensorsHeader(bytes, bytes.size()).status().message()),
                HasSubstr("expected at least 8"));
  }
  // A prefix that is too short for a valid length.
  EXPECT_FALSE(ParseSafetensorsHeader(absl::StrCat(LengthPrefix(20), "{}"), 1000).ok());
}

TEST(ParseSafetensorsHeaderTest, RefusesWrongOffsets) {
  const std::string data(8, 'x');
  const auto one = [](absl::string_view shape, absl::string_view offsets) {
    return absl::StrCat("{", Tensor("t", shape, offsets), "}");
  };
  EXPECT_THAT(ParseError(one("[2]", "[8,0]"), data), HasSubstr("end before they begin"));
  EXPECT_THAT(ParseError(one("[3]", "[0,12]"), data), HasSubstr("beyond the 8 bytes"));
  EXPECT_THAT(ParseError(one("[1]", "[0,8]"), data), HasSubstr("hold 8 bytes, expected 4"));
  EXPECT_THAT(ParseError(one("[1]", "[4,8]"), data), HasSubstr("hole after 0"));
  EXPECT_THAT(ParseError(one("[1]", "[0,4]"), data), HasSubstr("trailing bytes"));
  EXPECT_THAT(ParseError("{}", data), HasSubstr("trailing bytes"));
  EXPECT_THAT(ParseError(absl::StrCat("{", Tensor("a", "[2]", "[0,8]"), ",",
                                      Tensor("b", "[1]", "[4,8]"), "}"),
                         data),
              HasSubstr("overlap"));
  EXPECT_THAT(ParseError(absl::StrCat("{", Tensor("a", "[1]", "[0,4]"), ",",
                                      Tensor("b", "[0]", "[6,6]"), "}"),
                         data),
              HasSubstr("hole after 4"));
  for (const char* offsets : {"[0]", "[0,4,8]", "[]", "[-1,8]", "[0.0,8]", "[0,1e1]", "8", "\"0\"",
                              "[0,18446744073709551616]", "[null,8]", "[[0],8]", "{}"}) {
    EXPECT_THAT(ParseError(one("[2]", offsets), data), HasSubstr("tensor \"t\"")) << offsets;
  }
}

TEST(ParseSafetensorsHeaderTest, RefusesShapesThatOverflow) {
  for (const char* shape :
       {"[4294967296,4294967296]", "[4294967296,4294967296,0]", "[0,4294967296,4294967296]",
        "[9223372036854775807]", "[2305843009213693952,8]", "[65536,65536,65536,65536]"}) {
    EXPECT_THAT(ParseError(absl::StrCat("{", Tensor("t", shape, "[0,0]"), "}")),
                HasSubstr("too many elements"))
        << shape;
  }
  for (const char* shape : {"[9223372036854775808]", "[-1]", "[1.5]", "[true]", "[[1]]", "5",
                            "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"}) {
    EXPECT_THAT(ParseError(absl::StrCat("{", Tensor("t", shape, "[0,4]"), "}"), "1234"),
                HasSubstr("tensor \"t\""))
        << shape;
  }
  EXPECT_THAT(ParseError(absl::StrCat("{", Tensor("t", "[3]", "[0,1]", "F4"), "}"), "1"),
              HasSubstr("no whole bytes"));
}

TEST(ParseSafetensorsHeaderTest, RefusesDuplicates) {
  const std::string a = Tensor("a", "[1]", "[0,4]");
  EXPECT_THAT(ParseError(absl::StrCat("{", a, ",", a, "}"), "1234"), HasSubstr("duplicate tensor"));
  // The same name, once written with an escape.
  EXPECT_THAT(
      ParseError(absl::StrCat("{", a, ",", Tensor("\\u0061", "[1]", "[4,8]"), "}"), "12345678"),
      HasSubstr("duplicate tensor \"a\""));
  EXPECT_THAT(ParseError(R"({"__metadata__":{},"__metadata__":{}})"), HasSubstr("duplicate"));
  EXPECT_THAT(ParseError(R"({"__metadata__":{"x":"1","x":"2"}})"),
              HasSubstr("duplicate key \"x\""));
  EXPECT_THAT(
      ParseError(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"),
      HasSubstr("duplicate key \"dtype\""));
}

TEST(ParseSafetensorsHeaderTest, RefusesEveryOtherStructure) {
  for (const char* header : {"[]",
                             "\"x\"",
                             "12",
                             "nu",
                             " {}",
                             "{} x",
                             "{}{}",
                             "{",
                             R"({"a":1})",
                             R"({"a":[1]})",
                             R"({"a":"F32"})",
                             R"({"a":null})",
                             R"({"a":{}})",
                             R"({"a":{"dtype":"F32","shape":[]}})",
                             R"({"a":{"dtype":"F99","shape":[],"data_offsets":[0,4]}})",
                             R"({"a":{"dtype":["F32"],"shape":[],"data_offsets":[0,4]}})",
                             R"({"a":{"dtype":{},"shape":[],"data_offsets":[0,4]}})",
                             R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"extra":1}})",
                             R"({"__metadata__":{"x":1}})",
                             R"({"__metadata__":{"x":{}}})",
                             R"({"__metadata__":[]})",
                             R"({"__metadata__":"x"})",
                             "{\"\":{}}",
                             "\xef\xbb\xbf{}"}) {
    EXPECT_FALSE(ParseError(header, "1234").empty()) << header;
  }
  EXPECT_THAT(ParseError(absl::StrCat("{\"a\":", std::string(1'000'000, '['))),
              HasSubstr("unexpected an array"));
  EXPECT_THAT(ParseError(absl::StrCat("{\"__metadata__\":", std::string(1'000'000, '{'))),
              HasSubstr("syntax error"));
}

TEST(ParseSafetensorsHeaderTest, RefusesNamesThatAreNoCleanUtf8) {
  for (const char* name : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\\ud800", "a/b", "../a",
                           "a\\u0000b", "a\\nb", "\\u007f", "a\\/b", ""}) {
    EXPECT_FALSE(ParseError(absl::StrCat("{", Tensor(name, "[1]", "[0,4]"), "}"), "1234").empty())
        << name;
  }
  EXPECT_TRUE(Parse(absl::StrCat("{", Tensor("größe", "[1]", "[0,4]"), "}"), "1234").ok());
}

TEST(ParseSafetensorsHeaderTest, ReadsAMillionTensorsInReasonableTime) {
  std::string header = "{";
  for (int i = 0; i < 1'000'000; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",",
                    Tensor(absl::StrCat("layers.", i, ".w"), "[1]",
                           absl::StrCat("[", i, ",", i + 1, "]"), "U8"));
  }
  header += "}";
  const std::string prefix = SafetensorsBytes(header, "");
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<SafetensorsHeader> parsed =
      ParseSafetensorsHeader(prefix, prefix.size() + 1'000'000);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tensors.size(), 1'000'000u);
  RecordProperty("seconds", absl::StrCat(seconds.count()));
  // Below 1 s on an idle machine; the bound leaves room for sanitizers and load.
  EXPECT_LT(seconds.count(), 20);
}

class SafetensorsFileTest : public ::testing::Test {
 protected:
  ~SafetensorsFileTest() override { RemoveTree(dir_).IgnoreError(); }  // only scratch

  std::filesystem::path Write(absl::string_view bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return path_;
  }

  const std::filesystem::path dir_ = NewTestDirectory("safetensors");
  const std::filesystem::path path_ = dir_ / "model.safetensors";
};

TEST_F(SafetensorsFileTest, FindsBytesAndSurvivesMovesAndDroppedPages) {
  Write(SafetensorsBytes({{"a", DType::kU8, {3}, "xyz"}, {"b", DType::kF32, {1}, "1234"}}));
  absl::StatusOr<SafetensorsFile> opened = SafetensorsFile::Open(path_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  SafetensorsFile file = std::move(*opened);
  const absl::StatusOr<TensorView> view = file.Find("b");
  ASSERT_TRUE(view.ok()) << view.status();
  const auto text = [&] {
    return std::string(reinterpret_cast<const char*>(view->bytes.data()), view->bytes.size());
  };
  EXPECT_EQ(text(), "1234");
  file.DropPages(*view);
  EXPECT_EQ(text(), "1234");
  EXPECT_EQ(view->dtype(), DType::kF32);
  EXPECT_EQ(file.Find("c").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsFileTest, DropPagesLeavesOtherMemoryAlone) {
  Write(SafetensorsBytes({{"a", DType::kU8, {4}, "abcd"}}));
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok());
  TensorView view = *file->Find("a");
  // Dropping pages of this would set them to zero.
  const std::string other(size_t{8} << 20, 'y');
  view.bytes = absl::MakeConstSpan(reinterpret_cast<const std::byte*>(other.data()), other.size());
  file->DropPages(view);
  EXPECT_EQ(other.find_first_not_of('y'), std::string::npos);
}

TEST_F(SafetensorsFileTest, NoticesAFileThatShrinksAfterOpen) {
  Write(SafetensorsBytes({{"a", DType::kU8, {30000}, std::string(30000, 'x')}}));
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(path_, 9000);
  EXPECT_EQ(file->Find("a").status().code(), absl::StatusCode::kDataLoss);
  std::string buffer(30000, '\0');
  EXPECT_EQ(file->ReadAt(0, absl::MakeSpan(buffer)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(SafetensorsFileTest, RefusesEveryTruncation) {
  const std::string bytes = SafetensorsBytes({{"a", DType::kU8, {3}, "xyz"}});
  for (size_t size = 0; size < bytes.size(); ++size) {
    Write(bytes.substr(0, size));
    const absl::Status status = SafetensorsFile::Open(path_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_.string()));
  }
}

TEST_F(SafetensorsFileTest, RefusesWhatIsNoRegularFile) {
  EXPECT_EQ(SafetensorsFile::Open(path_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(dir_).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::Open(path_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace latentforge::checkpoint
