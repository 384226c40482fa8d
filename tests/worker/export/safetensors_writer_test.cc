#include "worker/export/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "checkpoint/safetensors.h"
#include "tests/checkpoint/fixture.h"
#include "worker/export/sharded_writer.h"

namespace latentforge::exporter {
namespace {

namespace fs = std::filesystem;
using checkpoint::DType;
using checkpoint::NewTestDirectory;
using checkpoint::SafetensorsFile;
using testing::HasSubstr;

std::string Text(const checkpoint::TensorView& view) {
  return {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()};
}

std::vector<TensorDeclaration> Three() {
  return {{"b", DType::kF32, {2, 2}}, {"none", DType::kBF16, {0, 4}}, {"a", DType::kBF16, {3}}};
}

TEST(SafetensorsWriterTest, OurReaderReadsWhatWasWritten) {
  const fs::path path = NewTestDirectory("round_trip") / "x.safetensors";
  auto writer = SafetensorsWriter::Create(path, Three());
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("b", "0123456").ok());
  ASSERT_TRUE(writer->Append("b", "789abcdef").ok());
  EXPECT_FALSE(writer->complete());
  ASSERT_TRUE(writer->Append("a", "ABCDEF").ok());
  const auto digest = writer->Finish();
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(*digest, Sha256File(path).value());

  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->header().metadata.at("format"), "pt");
  EXPECT_EQ(file->header().data_begin % 8, 0u);
  EXPECT_EQ(Text(file->Find("b").value()), "0123456789abcdef");
  EXPECT_EQ(Text(file->Find("a").value()), "ABCDEF");
  EXPECT_EQ(file->Find("none").value().bytes.size(), 0u);
  EXPECT_EQ(file->FindEntry("b")->shape, (checkpoint::Shape{2, 2}));
  EXPECT_EQ(file->FindEntry("a")->dtype, DType::kBF16);
}

TEST(SafetensorsWriterTest, MetadataIsKept) {
  const fs::path path = NewTestDirectory("metadata") / "x.safetensors";
  auto writer = SafetensorsWriter::Create(path, {{"a", DType::kF32, {1}}}, {{"key", "a \"b\" \\"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("a", "0123").ok());
  ASSERT_TRUE(writer->Finish().ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->header().metadata,
            (std::map<std::string, std::string>{{"format", "pt"}, {"key", "a \"b\" \\"}}));
}

TEST(SafetensorsWriterTest, EmptyTensorAtTheEndNeedsNoBytes) {
  const fs::path path = NewTestDirectory("empty") / "x.safetensors";
  auto writer = SafetensorsWriter::Create(path, {{"none", DType::kF32, {0}}});
  ASSERT_TRUE(writer.ok());
  EXPECT_TRUE(writer->Finish().ok());
  EXPECT_TRUE(SafetensorsFile::Open(path).ok());
}

TEST(SafetensorsWriterTest, RefusesWhatWasNotDeclared) {
  const fs::path path = NewTestDirectory("wrong") / "x.safetensors";
  auto writer = SafetensorsWriter::Create(path, Three());
  ASSERT_TRUE(writer.ok());
  const absl::Status order = writer->Append("a", "ABCDEF");
  EXPECT_TRUE(absl::IsFailedPrecondition(order));
  EXPECT_THAT(std::string(order.message()), HasSubstr("where b is expected"));
  const absl::Status size = writer->Append("b", "0123456789abcdefg");
  EXPECT_TRUE(absl::IsFailedPrecondition(size));
  EXPECT_THAT(std::string(size.message()), HasSubstr("declared were 16"));
  ASSERT_TRUE(writer->Append("b", "0123456789abcdef").ok());
  ASSERT_TRUE(writer->Append("a", "ABC").ok());
  const absl::Status missing = writer->Finish().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("tensor a has 3 bytes"));
}

TEST(SafetensorsWriterTest, RefusesBadDeclarations) {
  const fs::path dir = NewTestDirectory("declarations");
  const std::vector<std::vector<TensorDeclaration>> bad = {
      {{"x", DType::kF32, {1}}, {"x", DType::kF32, {1}}},
      {{"", DType::kF32, {1}}},
      {{"__metadata__", DType::kF32, {1}}},
      {{"x", DType::kF32, {-1}}},
      {{"x", DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}}},
      {{"x", DType::kF4, {8}}}};
  for (const auto& tensors : bad) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        SafetensorsWriter::Create(dir / "x.safetensors", tensors).status()));
  }
  EXPECT_FALSE(fs::exists(dir / "x.safetensors"));
}

TEST(SafetensorsWriterTest, DoesNotOverwrite) {
  const fs::path path = NewTestDirectory("exists") / "x.safetensors";
  ASSERT_TRUE(WriteFileAtomic(path, "precious").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(SafetensorsWriter::Create(path, Three()).status()));
  EXPECT_EQ(ReadFile(path).value(), "precious");
}

// Limits the size of files that this process may write.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

TEST(SafetensorsWriterTest, DiskFullIsResourceExhausted) {
  const fs::path path = NewTestDirectory("full") / "x.safetensors";
  const std::string bytes(40'000, 'x');
  auto writer = SafetensorsWriter::Create(path, {{"big", DType::kF32, {10'000}}});
  ASSERT_TRUE(writer.ok());
  absl::Status status;
  {
    const FileSizeLimit limit(4096);
    status = writer->Append("big", bytes);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path.string()));
}

TEST(ShardedWriterTest, SplitsAndIndexes) {
  const fs::path dir = NewTestDirectory("shards");
  auto writer = ShardedWriter::Create(
      dir, {{"a", DType::kF32, {2}}, {"b", DType::kF32, {3}}, {"c", DType::kF32, {1}}}, 12);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("a", "aaaaaaaa").ok());
  ASSERT_TRUE(writer->Append("b", "bbbbbb").ok());
  ASSERT_TRUE(writer->Append("b", "BBBBBB").ok());
  ASSERT_TRUE(writer->Append("c", "cccc").ok());
  const auto shards = writer->Finish();
  ASSERT_TRUE(shards.ok()) << shards.status();
  ASSERT_EQ(shards->size(), 3u);
  for (const auto& [name, digest] : *shards) EXPECT_EQ(digest, Sha256File(dir / name).value());
  EXPECT_EQ(shards->at(1).first, "model-00002-of-00003.safetensors");
  const auto file = SafetensorsFile::Open(dir / "model-00002-of-00003.safetensors");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(Text(file->Find("b").value()), "bbbbbbBBBBBB");
  const Json index = ParseJson(writer->IndexText().value()).value();
  EXPECT_EQ(index["metadata"]["total_size"], 24);
  EXPECT_EQ(index["weight_map"]["c"], "model-00003-of-00003.safetensors");
}

TEST(ShardedWriterTest, OneShardHasThePlainNameAndNoIndex) {
  const fs::path dir = NewTestDirectory("one_shard");
  auto writer = ShardedWriter::Create(dir, {{"a", DType::kF32, {1}}});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->Append("a", "aaaa").ok());
  EXPECT_TRUE(writer->Finish().ok());
  EXPECT_EQ(writer->IndexText(), std::nullopt);
  EXPECT_TRUE(fs::exists(dir / "model.safetensors"));
}

TEST(ShardedWriterTest, UnwrittenTensorsAreAnError) {
  const fs::path dir = NewTestDirectory("unwritten");
  auto writer = ShardedWriter::Create(dir, {{"a", DType::kF32, {1}}, {"b", DType::kF32, {1}}}, 4);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->Append("a", "aaaa").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(writer->Finish().status()));
}

}  // namespace
}  // namespace latentforge::exporter
