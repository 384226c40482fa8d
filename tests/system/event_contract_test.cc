// The contract between latentforge-convert and the worker, with the real program:
// it accepts every field of a JobSpec as the worker writes it, and every line that
// it prints is an AttemptEvent.
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/child_process.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "latentforge/v1/event.pb.h"
#include "latentforge/v1/spec.pb.h"
#include "tests/checkpoint/fixture.h"
#include "tests/system/character_tokenizer.h"
#include "worker/agent/event_reader.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Finished {
  ExitStatus exit;
  std::vector<v1::AttemptEvent> events;
  absl::Status stream;
  std::string log;
};

class EventContractTest : public testing::Test {
 protected:
  EventContractTest() {
    const absl::Status written = checkpoint::WriteTinyCheckpoint(folder_ / "model");
    EXPECT_TRUE(written.ok()) << written;
    std::ofstream(folder_ / "model/tokenizer.json") << WriteJson(CharacterTokenizer());
    std::ofstream text(folder_ / "corpus.txt");
    for (int i = 0; i < 400; ++i)
      text << "in the beginning was the word, and line "
           << "abc"[i % 3] << " had some more.\n";
  }
  ~EventContractTest() override { fs::remove_all(folder_); }

  // Every field that does not exclude another one is set.
  v1::JobSpec FullSpec() const {
    v1::JobSpec spec;
    spec.mutable_source()->set_uri(absl::StrCat("file://", (folder_ / "model").string()));
    spec.set_method(v1::METHOD_KV_LATENT);
    spec.mutable_budget()->set_kv_budget(0.5);
    v1::FactorizationSpec& factorization = *spec.mutable_factorization();
    factorization.set_preconditioner(v1::PRECONDITIONER_FISHER);
    factorization.set_damping(0.001);
    factorization.set_alpha(0.5);
    factorization.set_allocation(v1::RANK_ALLOCATION_PROFILE);
    factorization.set_latent(v1::LATENT_LAYOUT_SEPARATE);
    factorization.set_sink_weight(0.25);
    factorization.set_rank_multiple(1);
    factorization.set_anchored(true);
    for (int layer = 0; layer < 2; ++layer) {
      v1::LayerRank& rank = *factorization.mutable_rank_profile()->add_layers();
      rank.set_layer(layer);
      rank.set_rank_k(7);
      rank.set_rank_v(9);
    }
    v1::CorpusSpec& corpus = *spec.mutable_calibration()->add_corpora();
    corpus.set_uri((folder_ / "corpus.txt").string());
    corpus.set_weight(2.5);
    spec.mutable_calibration()->set_sequences(4);
    spec.mutable_calibration()->set_sequence_length(32);
    spec.mutable_calibration()->set_seed(uint64_t{1} << 53);
    spec.mutable_calibration()->set_labels(v1::FISHER_LABELS_TEXT);
    spec.mutable_evaluation()->mutable_corpus()->set_uri((folder_ / "corpus.txt").string());
    spec.mutable_evaluation()->set_windows(2);
    spec.mutable_evaluation()->set_window_length(32);
    spec.mutable_evaluation()->set_quality_gate(1000);
    v1::HealingSpec& healing = *spec.mutable_healing();
    healing.set_tokens(256);
    healing.set_sequence_length(32);
    healing.set_batch_sequences(2);
    healing.set_learning_rate(1e-3);
    healing.set_warmup_steps(1);
    healing.set_weight_decay(0.01);
    healing.set_evaluate_every(2);
    *healing.add_corpora() = corpus;
    spec.mutable_output()->set_uri((folder_ / "out").string());
    spec.mutable_output()->set_dtype(v1::DATA_TYPE_FLOAT32);
    spec.set_dtype(v1::DATA_TYPE_FLOAT32);
    spec.set_device("cpu");
    spec.set_threads(1);
    spec.mutable_deadline()->set_seconds(3600);
    spec.mutable_queue_deadline()->set_seconds(60);
    spec.mutable_run_deadline()->set_seconds(600);
    spec.mutable_ttl()->set_seconds(86400);
    spec.set_priority(v1::PRIORITY_HIGH);
    (*spec.mutable_worker_selector())["zone"] = "a";
    return spec;
  }

  Finished Convert(const v1::JobSpec& spec) const {
    std::string json;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(spec, &json).ok());
    std::ofstream(folder_ / "spec.json") << json;
    Finished finished;
    auto child = ChildProcess::Start(
        {.argv = {absl::StrCat(LATENTFORGE_BINARY_DIR, "/bin/latentforge-convert"), "--spec",
                  (folder_ / "spec.json").string(), "--work-dir", (folder_ / "work").string()}});
    EXPECT_TRUE(child.ok()) << child.status();
    if (!child.ok()) return finished;
    ChildOutput output;
    while (!(*child)->finished()) {
      EXPECT_TRUE((*child)->Poll(-1, absl::InfiniteDuration(), &output).ok());
    }
    agent::EventReader reader;
    finished.stream = reader.Feed(output.out, [&finished](v1::AttemptEvent event) {
      finished.events.push_back(std::move(event));
      return absl::OkStatus();
    });
    finished.stream.Update(reader.Finish());
    finished.exit = (*child)->exit_status();
    finished.log = output.err;
    return finished;
  }

  const fs::path folder_ = checkpoint::NewTestDirectory("event_contract");
};

TEST_F(EventContractTest, EveryLineOfASuccessfulAttemptIsAnEvent) {
  const Finished finished = Convert(FullSpec());
  ASSERT_TRUE(finished.stream.ok()) << finished.stream;
  ASSERT_TRUE(finished.exit.ok()) << finished.exit.ToString() << "\n" << finished.log;

  std::map<v1::AttemptEvent::KindCase, int> kinds;
  std::vector<v1::Phase> started;
  for (const v1::AttemptEvent& event : finished.events) {
    ++kinds[event.kind_case()];
    EXPECT_TRUE(event.has_time());
    if (event.has_phase_started()) started.push_back(event.phase_started().phase());
  }
  EXPECT_THAT(started,
              ElementsAre(v1::PHASE_FETCHING, v1::PHASE_CALIBRATING, v1::PHASE_FACTORIZING,
                          v1::PHASE_FINE_TUNING, v1::PHASE_EVALUATING, v1::PHASE_PUBLISHING));
  EXPECT_EQ(kinds[v1::AttemptEvent::kPhaseFinished], 6);
  // Four steps, and measurements before the first, after the second and after the last.
  EXPECT_EQ(kinds[v1::AttemptEvent::kHealing], 7);
  EXPECT_GE(kinds[v1::AttemptEvent::kProgress], 2);
  EXPECT_GE(kinds[v1::AttemptEvent::kPerplexity], 2);
  ASSERT_TRUE(finished.events.back().has_result());

  const v1::ConversionResult& result = finished.events.back().result();
  EXPECT_EQ(result.artifact_uri(), absl::StrCat("file://", (folder_ / "out").string()));
  EXPECT_TRUE(fs::exists(folder_ / "out/report.json"));
  EXPECT_EQ(result.manifest_sha256().size(), 64u);
  EXPECT_GT(result.perplexity_base(), 1);
  EXPECT_GT(result.perplexity_converted(), 1);
  EXPECT_GT(result.kv_bytes_per_token_base(), result.kv_bytes_per_token_converted());
  EXPECT_GT(result.peak_rss_bytes(), 0);
  EXPECT_EQ(result.phases_size(), 6);
  ASSERT_EQ(result.rank_profile().layers_size(), 2);
  EXPECT_EQ(result.rank_profile().layers(1).rank_k(), 7);
  EXPECT_EQ(result.rank_profile().layers(1).rank_v(), 9);
}

TEST_F(EventContractTest, AnErrorIsTheLastEventAndSetsTheExitCode) {
  fs::remove(folder_ / "model/config.json");
  const Finished finished = Convert(FullSpec());
  ASSERT_TRUE(finished.stream.ok()) << finished.stream;
  ASSERT_FALSE(finished.events.empty());
  ASSERT_TRUE(finished.events.back().has_error());
  const v1::ConversionError& error = finished.events.back().error();
  EXPECT_EQ(error.error_class(), v1::ERROR_CLASS_USER);
  EXPECT_FALSE(error.retryable());
  EXPECT_FALSE(error.reason().empty());
  EXPECT_THAT(error.message(), HasSubstr("config.json"));
  EXPECT_EQ(finished.exit.code, 1);
}

}  // namespace
}  // namespace latentforge
