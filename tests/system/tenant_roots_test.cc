// Two tenants and real programs: what one may not name, and where its links do not lead.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/json.h"
#include "base/sha256.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"
#include "tests/system/character_tokenizer.h"
#include "tests/system/cluster.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// Of a test: a folder for each tenant, with a model and a text.
class Tenants {
 public:
  Tenants() {
    for (const char* tenant : {"a", "b"}) {
      const fs::path folder = folder_ / tenant;
      const absl::Status written = checkpoint::WriteTinyCheckpoint(folder / "model");
      EXPECT_TRUE(written.ok()) << written;
      std::ofstream(folder / "model/tokenizer.json") << WriteJson(CharacterTokenizer());
      WriteText(folder / "text.txt");
      std::ofstream(TokenFile(), std::ios::app)
          << "sha256:" << Sha256Hex(tenant) << " user-" << tenant << " " << tenant << " user\n";
    }
    std::ofstream(TenantsFile()) << WriteJson(
        Json{{"a", {{"allowed_roots", {(folder_ / "a").string()}}}},
             {"b", {{"allowed_roots", {(folder_ / "b").string()}}}}});
  }
  ~Tenants() { fs::remove_all(folder_); }

  static void WriteText(const fs::path& path) {
    std::ofstream text(path);
    for (int i = 0; i < 400; ++i)
      text << "in the beginning was the word, and line "
           << "abc"[i % 3] << " had some more.\n";
  }

  std::string TokenFile() const { return (folder_ / "tokens").string(); }
  std::string TenantsFile() const { return (folder_ / "tenants.json").string(); }
  fs::path Of(const std::string& tenant) const { return folder_ / tenant; }

 private:
  const fs::path folder_ = fs::canonical(checkpoint::NewTestDirectory("tenants"));
};

class TenantRootsTest : public testing::Test {
 protected:
  v1::JobSpec SpecOf(const std::string& tenant, const std::string& output) const {
    v1::JobSpec spec;
    spec.mutable_source()->set_uri((tenants_.Of(tenant) / "model").string());
    spec.mutable_budget()->set_kv_budget(0.5);
    spec.mutable_calibration()->add_corpora()->set_uri((tenants_.Of(tenant) / "text.txt").string());
    spec.mutable_calibration()->set_sequences(4);
    spec.mutable_calibration()->set_sequence_length(32);
    spec.mutable_evaluation()->set_windows(2);
    spec.mutable_evaluation()->set_window_length(32);
    spec.mutable_output()->set_uri((tenants_.Of(tenant) / output).string());
    spec.set_dtype(v1::DATA_TYPE_FLOAT32);
    spec.set_device("cpu");
    spec.set_threads(1);
    return spec;
  }

  // As a user of the tenant, whose token is its name.
  grpc::Status Submit(const std::string& tenant, const v1::JobSpec& spec,
                      std::string* job = nullptr, bool validate_only = false) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    context.AddMetadata("authorization", "Bearer " + tenant);
    v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_validate_only(validate_only);
    v1::CreateJobResponse response;
    const grpc::Status status = cluster_.jobs().CreateJob(&context, request, &response);
    if (job != nullptr) *job = response.job().name();
    return status;
  }

  const Tenants tenants_;
  Cluster cluster_{{.server_flags = {"--token-file", tenants_.TokenFile(), "--tenants",
                                     tenants_.TenantsFile()}}};
};

TEST_F(TenantRootsTest, AnothersFilesAreRefusedAlikeWhetherTheyExistOrNot) {
  const auto answer = [&](const std::string& model, const std::string& text,
                          const std::string& output) {
    v1::JobSpec spec = SpecOf("a", "out");
    if (!model.empty()) spec.mutable_source()->set_uri((tenants_.Of("b") / model).string());
    if (!text.empty())
      *spec.mutable_evaluation()->mutable_corpus()->mutable_uri() =
          (tenants_.Of("b") / text).string();
    if (!output.empty()) spec.mutable_output()->set_uri((tenants_.Of("b") / output).string());
    const grpc::Status status = Submit("a", spec);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_details(), HasSubstr("PATH_NOT_ALLOWED"));
    EXPECT_EQ(Submit("a", spec, nullptr, /*validate_only=*/true).error_message(),
              status.error_message());
    return absl::StrReplaceAll(status.error_message(),
                               {{"absent", "NAME"}, {"model", "NAME"}, {"text.txt", "NAME"}});
  };
  EXPECT_EQ(answer("model", "", ""), answer("absent", "", ""));
  EXPECT_EQ(answer("", "text.txt", ""), answer("", "absent", ""));
  EXPECT_EQ(answer("", "", "model"), answer("", "", "absent"));
  EXPECT_THAT(answer("", "text.txt", ""),
              HasSubstr("outside the allowed roots " + tenants_.Of("a").string()));
  EXPECT_TRUE(Submit("b", SpecOf("b", "out")).ok());
}

TEST_F(TenantRootsTest, ALinkThatIsMadeAfterSubmitLeadsNowhere) {
  std::string fine;
  std::string linked;
  ASSERT_TRUE(Submit("a", SpecOf("a", "fine"), &fine).ok());
  v1::JobSpec spec = SpecOf("a", "linked");
  Tenants::WriteText(tenants_.Of("a") / "other.txt");
  spec.mutable_calibration()->mutable_corpora(0)->set_uri(
      (tenants_.Of("a") / "other.txt").string());
  ASSERT_TRUE(Submit("a", spec, &linked).ok());
  fs::remove(tenants_.Of("a") / "other.txt");
  fs::create_symlink(tenants_.Of("b") / "text.txt", tenants_.Of("a") / "other.txt");
  // The worker itself allows everything.
  cluster_.StartWorker("w1", {.convert = "latentforge-convert"});
  const v1::Job succeeded = cluster_.AwaitEnd(fine);
  EXPECT_EQ(succeeded.status().state(), v1::JOB_STATE_SUCCEEDED) << succeeded.ShortDebugString();
  const v1::Job refused = cluster_.AwaitEnd(linked);
  EXPECT_EQ(refused.status().state(), v1::JOB_STATE_FAILED) << refused.ShortDebugString();
  EXPECT_EQ(refused.status().error().reason(), "CORPUS_NOT_READABLE");
  EXPECT_THAT(refused.status().error().message(), HasSubstr("other.txt"));
  EXPECT_FALSE(fs::exists(tenants_.Of("a") / "linked"));
}

TEST_F(TenantRootsTest, AWorkerThatAllowsNothingOfThemFailsTheJobInAFewAttempts) {
  std::string job;
  ASSERT_TRUE(Submit("a", SpecOf("a", "out"), &job).ok());
  cluster_.StartWorker("w1", {.flags = {"--allowed-root", tenants_.Of("b").string()},
                              .convert = "latentforge-convert"});
  const v1::Job failed = cluster_.AwaitEnd(job);
  EXPECT_EQ(failed.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(failed.status().attempt(), 3);
  EXPECT_EQ(failed.status().error().reason(), "WORKER_ROOTS_TOO_NARROW");
  EXPECT_EQ(failed.status().error().error_class(), v1::ERROR_CLASS_SYSTEM);
  EXPECT_THAT(failed.status().error().message(), HasSubstr(tenants_.Of("a").string()));
  EXPECT_THAT(failed.status().error().message(), HasSubstr(tenants_.Of("b").string()));
}

}  // namespace
}  // namespace latentforge
