#include "client/compute_events.h"

#include <string>
#include <utility>
#include <vector>

#include "client/evaluate_run.h"
#include "client/progress_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RecordingView : public SilentView {
 public:
  void Show(const v1::Job& job, const v1::JobEvent* event) override {
    if (event != nullptr && event->has_perplexity())
      lines_.push_back(PerplexityText(job.status().perplexity()));
  }
  std::vector<std::string> lines_;
};

constexpr char kPerplexity[] =
    R"({"sequence":"1","perplexity":{"kind":"PERPLEXITY_KIND_BASE","value":12.5,"windowsDone":2,"windowsTotal":2}})";

TEST(ComputeEventsTest, APerplexityIsThatOfTheMeasuredModel) {
  for (const auto& [kind, text] : {std::pair(v1::PERPLEXITY_KIND_CONVERTED, "converted"),
                                   std::pair(v1::PERPLEXITY_KIND_BASE, "original")}) {
    RecordingView view;
    ComputeEvents events(view, kind);
    events.TakeLine(kPerplexity);
    EXPECT_THAT(view.lines_, ElementsAre(HasSubstr(text)));
  }
}

TEST(ComputeEventsTest, AFailureIsTheErrorEventOrTheEndOfTheLog) {
  SilentView view;
  ComputeEvents crashed(view, v1::PERPLEXITY_KIND_BASE);
  crashed.TakeLine("last words");
  EXPECT_THAT(crashed.Failure("signal 9").message(), HasSubstr("signal 9\n  | last words"));
  ComputeEvents refused(view, v1::PERPLEXITY_KIND_BASE);
  refused.TakeLine(
      R"({"error":{"reason":"MALFORMED_CONFIG","message":"no","errorClass":"ERROR_CLASS_USER"}})");
  EXPECT_EQ(refused.Failure("exit code 1").code(), absl::StatusCode::kInvalidArgument);
}

TEST(FiguresTableTest, IsForPeople) {
  EXPECT_EQ(FiguresTable({{"perplexity", 23.576},
                          {"peak_rss_bytes", 232816640},
                          {"kv_bytes_per_token", 11520},
                          {"seconds", 36.24},
                          {"text", "a.txt"}}),
            "perplexity              23.58\n"
            "KV cache bytes a token  11,520\n"
            "time                    36.2 s\n"
            "peak memory             222.0 MiB\n"
            "measured on             a.txt\n");
}

}  // namespace
}  // namespace latentforge::client
