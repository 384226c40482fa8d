#include "worker/factorize/loss_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/worker/factorize/loss_reference.h"

namespace latentforge::factorize {
namespace {

using Member = at::Tensor LossStatistics::*;
constexpr std::pair<Member, const char*> kMoments[] = {
    {&LossStatistics::output, "output"},
    {&LossStatistics::output_first, "output_first"},
    {&LossStatistics::fisher, "fisher"},
    {&LossStatistics::fisher_first, "fisher_first"}};

LossStatistics Good() { return RandomLossProblem(3, 8, 1).statistics; }

void ExpectStatus(const LossStatistics& statistics, absl::StatusCode code,
                  const std::string& part) {
  const absl::Status status = CheckLossStatistics(statistics, 6);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(status.message().find(part), absl::string_view::npos) << status;
}

TEST(LossStatisticsTest, AcceptsMomentsAlsoOfZero) {
  LossStatistics statistics = Good();
  EXPECT_TRUE(CheckLossStatistics(statistics, 6).ok());
  for (const auto& [member, name] : kMoments) (statistics.*member).zero_();
  EXPECT_TRUE(CheckLossStatistics(statistics, 6).ok());
}

TEST(LossStatisticsTest, RefusesCounts) {
  LossStatistics statistics = Good();
  statistics.tokens = 0;
  ExpectStatus(statistics, absl::StatusCode::kInvalidArgument, "tokens is 0");
  statistics = Good();
  statistics.sequences = 0;
  ExpectStatus(statistics, absl::StatusCode::kInvalidArgument, "sequences is 0");
  statistics.sequences = statistics.tokens + 1;
  ExpectStatus(statistics, absl::StatusCode::kInvalidArgument, "sequences is 401");
}

TEST(LossStatisticsTest, NamesTheMomentThatIsWrong) {
  for (const auto& [member, name] : kMoments) {
    LossStatistics statistics = Good();
    statistics.*member = at::Tensor();
    ExpectStatus(statistics, absl::StatusCode::kInvalidArgument, std::string("lack ") + name);
    statistics = Good();
    statistics.*member = (statistics.*member).narrow(0, 0, 5);
    ExpectStatus(statistics, absl::StatusCode::kInvalidArgument,
                 std::string(name) + " has shape [5, 6]");
    statistics = Good();
    statistics.*member = (statistics.*member).to(at::kFloat);
    ExpectStatus(statistics, absl::StatusCode::kInvalidArgument, "type Float");
    for (const double value : {std::nan(""), HUGE_VAL}) {
      statistics = Good();
      (statistics.*member)[2][3] = value;
      ExpectStatus(statistics, absl::StatusCode::kInternal, std::string(name) + " is not finite");
    }
    statistics = Good();
    statistics.*member = -(statistics.*member);  // negative trace
    ExpectStatus(statistics, absl::StatusCode::kInternal, std::string(name) + " has -");
    statistics = Good();
    (statistics.*member)[4][4] = -1e-3;
    ExpectStatus(statistics, absl::StatusCode::kInternal, "-0.001 on its diagonal");
  }
}

TEST(LossStatisticsTest, AcceptsFiniteMomentsWhoseSumOverflows) {
  LossStatistics statistics = Good();
  statistics.output.fill_(1e308);
  EXPECT_TRUE(CheckLossStatistics(statistics, 6).ok());
  statistics.output[0][1] = -HUGE_VAL;
  statistics.output[1][0] = HUGE_VAL;
  ExpectStatus(statistics, absl::StatusCode::kInternal, "output is not finite");
}

TEST(LossStatisticsTest, RefusesEmptyMoments) {
  LossStatistics statistics = Good();
  for (const auto& [member, name] : kMoments) statistics.*member = at::zeros({0, 0}, at::kDouble);
  EXPECT_EQ(CheckLossStatistics(statistics, 0).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace latentforge::factorize
