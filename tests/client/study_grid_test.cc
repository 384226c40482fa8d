#include "client/study_grid.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "client/study_cells.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

StudyFlags MinimalStudy() {
  StudyFlags flags;
  flags.spec.model = "m";
  flags.spec.calibration = {"a.txt"};
  flags.spec.evaluate = "e.txt";
  return flags;
}

absl::StatusOr<StudyGrid> Build(const StudyFlags& flags) {
  FileAccess files;
  files.current_folder = "/data";
  files.exists = [](const std::filesystem::path&) { return true; };
  files.read = [](const std::string& path, int64_t) { return absl::NotFoundError(path); };
  return BuildGrid(flags, files);
}

std::string Refusal(const StudyFlags& flags) {
  return std::string(Build(flags).status().message());
}

const StudyCell& CellOf(const StudyGrid& grid, const std::string& row, double ratio) {
  for (const StudyCell& cell : grid.cells) {
    if (cell.row == row && cell.ratio == ratio) return cell;
  }
  ADD_FAILURE() << row << " at " << ratio << " is no cell";
  return grid.cells[0];
}

TEST(StudyGridTest, TheDefaultIsTheSlidesRowsAndOurs) {
  const absl::StatusOr<StudyGrid> grid = Build(MinimalStudy());
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_THAT(grid->rows, ElementsAre("plain SVD", "Hessian", "l1", "l2", "Cov", "RootCov",
                                      "LatentLLM", "Fisher, global ranks"));
  EXPECT_THAT(grid->ratios, ElementsAre(0.1, 0.2, 0.3, 0.4, 0.5));
  EXPECT_EQ(grid->cells.size(), 40u);
  for (const StudyCell& cell : grid->cells) {
    EXPECT_EQ(cell.spec.method(), v1::METHOD_LOW_RANK);
    EXPECT_EQ(cell.spec.budget().parameter_ratio(), cell.ratio);
    EXPECT_EQ(cell.spec.low_rank().layout(), v1::FACTOR_LAYOUT_BLOCK_IDENTITY);
    EXPECT_EQ(cell.spec.source().uri(), "file:///data/m");
    EXPECT_FALSE(cell.spec.has_output());
    const bool latentllm = cell.row == "LatentLLM";
    EXPECT_EQ(cell.spec.low_rank().query_key(),
              latentllm ? v1::JOINT_MODE_JOINT : v1::JOINT_MODE_LOCAL);
    EXPECT_EQ(cell.spec.low_rank().value_output(), cell.spec.low_rank().query_key());
    const bool ours = cell.row == "Fisher, global ranks";
    EXPECT_EQ(cell.spec.factorization().allocation(),
              ours ? v1::RANK_ALLOCATION_GLOBAL : v1::RANK_ALLOCATION_UNIFORM);
    EXPECT_EQ(cell.spec.factorization().preconditioner() == v1::PRECONDITIONER_FISHER, ours);
  }
}

// One calibration serves all only if the one that holds most is made first.
TEST(StudyGridTest, CellsRunByWhatTheirStatisticsHold) {
  const StudyGrid grid = Build(MinimalStudy()).value();
  std::vector<std::string> order;
  for (const StudyCell& cell : grid.cells) {
    if (order.empty() || order.back() != cell.row) order.push_back(cell.row);
  }
  EXPECT_THAT(order, ElementsAre("Hessian", "Cov", "LatentLLM", "plain SVD", "l1", "l2", "RootCov",
                                 "Fisher, global ranks"));
}

TEST(StudyGridTest, CellsHaveTheTypeOfTheOutputAndNoFolder) {
  StudyFlags flags = MinimalStudy();
  flags.spec.output_dtype = "float16";
  const absl::StatusOr<StudyGrid> grid = Build(flags);
  ASSERT_TRUE(grid.ok()) << grid.status();
  for (const StudyCell& cell : grid->cells) {
    EXPECT_EQ(cell.spec.output().dtype(), v1::DATA_TYPE_FLOAT16);
    EXPECT_EQ(cell.spec.output().uri(), "");
  }
  flags.spec.output_dtype = "int8";
  EXPECT_THAT(Refusal(flags), HasSubstr("--output-dtype is \"int8\""));
}

TEST(StudyGridTest, FlagsSpanRowsAndRepeatThem) {
  StudyFlags flags = MinimalStudy();
  flags.ratios = {"0.5", "0.25"};
  flags.preconditioners = {"root-covariance", "identity"};
  flags.query_key = {"local", "joint"};
  flags.value_output = {"joint", "local"};
  absl::StatusOr<StudyGrid> grid = Build(flags);
  ASSERT_TRUE(grid.ok()) << grid.status();
  // Joint modes are root-covariance's alone.
  EXPECT_THAT(grid->rows, ElementsAre("root-covariance, joint value-output", "root-covariance",
                                      "root-covariance, joint query-key, joint value-output",
                                      "root-covariance, joint query-key", "identity"));
  EXPECT_THAT(grid->ratios, ElementsAre(0.25, 0.5));
  EXPECT_EQ(grid->cells.size(), 10u);

  flags = MinimalStudy();
  flags.ratios = {"0.3"};
  flags.preconditioners = {"identity"};
  flags.factor_layouts = {"block-identity", "plain"};
  flags.bias_update = {"off", "on"};
  flags.activations = {"compressed"};
  flags.mlp = {"output-metric"};
  grid = Build(flags);
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_THAT(grid->rows,
              ElementsAre("identity, MLP by output-metric, compressed activations",
                          "identity, MLP by output-metric, bias update, compressed activations",
                          "identity, plain factors, MLP by output-metric, compressed activations",
                          "identity, plain factors, MLP by output-metric, bias update, compressed "
                          "activations"));
  const v1::LowRankSpec& last = CellOf(*grid, grid->rows[3], 0.3).spec.low_rank();
  EXPECT_EQ(last.layout(), v1::FACTOR_LAYOUT_PLAIN);
  EXPECT_EQ(last.mlp(), v1::MLP_COMPRESSION_OUTPUT_METRIC);
  EXPECT_EQ(last.activations(), v1::ACTIVATION_SOURCE_COMPRESSED);
  EXPECT_TRUE(last.bias_update());

  // Beside the named rows; what is one of them stands once.
  flags = MinimalStudy();
  flags.ratios = {"0.3"};
  flags.query_key = {"joint"};
  flags.value_output = {"local", "joint"};
  flags.named_rows = true;
  grid = Build(flags);
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->rows.size(), 9u);
  EXPECT_EQ(grid->rows.back(), "root-covariance, joint query-key");
  EXPECT_EQ(grid->cells.size(), 9u);
}

TEST(StudyGridTest, RefusalsNameFlagValueAndExpectation) {
  const auto with = [](const auto& change) {
    StudyFlags flags = MinimalStudy();
    change(flags);
    return Refusal(flags);
  };
  for (const char* ratio : {"1", "0", "-0.1", "nan", "half", "10%"}) {
    EXPECT_EQ(with([&](auto& f) {
                f.ratios = {"0.2", ratio};
              }),
              absl::StrCat("--ratios is \"", ratio,
                           "\", expected numbers in (0, 1), such as 0.1,0.3,0.5"));
  }
  EXPECT_EQ(with([](auto& f) {
              f.ratios = {"0.2", "0.20"};
            }),
            "--ratios is \"0.20\" twice, expected each value once");
  EXPECT_THAT(with([](auto& f) { f.preconditioners = {"rootcov"}; }),
              HasSubstr("--preconditioners is \"rootcov\", expected "));
  EXPECT_EQ(with([](auto& f) {
              f.preconditioners = {"fisher", "PRECONDITIONER_FISHER"};
            }),
            "--preconditioners is \"fisher\" twice, expected each value once");
  EXPECT_THAT(with([](auto& f) { f.factor_layouts = {"dense"}; }),
              HasSubstr("--factor-layouts is \"dense\", expected "));
  EXPECT_THAT(with([](auto& f) { f.mlp = {"x"}; }), HasSubstr("--mlp is \"x\", expected "));
  EXPECT_THAT(with([](auto& f) { f.activations = {"x"}; }),
              HasSubstr("--activations is \"x\", expected "));
  EXPECT_THAT(with([](auto& f) { f.value_output = {"x"}; }),
              HasSubstr("--value-output is \"x\", expected "));
  EXPECT_EQ(with([](auto& f) { f.bias_update = {"yes"}; }),
            "--bias-update is \"yes\", expected off, on or both: off,on");
  EXPECT_EQ(with([](auto& f) {
              f.preconditioners = {"identity", "fisher"};
              f.query_key = {"local", "joint"};
            }),
            "--query-key is \"joint\", expected local without root-covariance in "
            "--preconditioners");
  EXPECT_THAT(with([](auto& f) { f.spec.model.reset(); }), HasSubstr("MODEL is missing"));
  EXPECT_THAT(with([](auto& f) { f.spec.calibration.clear(); }),
              HasSubstr("--calibration is missing"));
  EXPECT_THAT(with([](auto& f) { f.spec.evaluate.reset(); }), HasSubstr("--evaluate is missing"));
}

TEST(CellKeyTest, IsOfEverythingThatDefinesTheFiguresAndOfNothingElse) {
  const StudyGrid grid = Build(MinimalStudy()).value();
  InputDigests inputs = {
      {"file:///data/m", "model"}, {"file:///data/a.txt", "a"}, {"file:///data/e.txt", "e"}};
  std::set<std::string> keys;
  for (const StudyCell& cell : grid.cells) keys.insert(CellKey(cell.spec, inputs));
  EXPECT_EQ(keys.size(), grid.cells.size());

  const v1::JobSpec& spec = grid.cells[0].spec;
  const std::string key = CellKey(spec, inputs);
  EXPECT_EQ(key.size(), 32u);
  const auto changed = [&](const auto& change) {
    v1::JobSpec other = spec;
    change(other);
    return CellKey(other, inputs);
  };
  // Where it is computed and where it goes.
  EXPECT_EQ(changed([](auto& s) { s.mutable_output()->set_uri("/out"); }), key);
  EXPECT_EQ(changed([](auto& s) { s.set_threads(7); }), key);
  EXPECT_EQ(changed([](auto& s) { s.mutable_deadline()->set_seconds(60); }), key);
  // What it is.
  EXPECT_NE(changed([](auto& s) { s.mutable_calibration()->set_seed(1); }), key);
  EXPECT_NE(changed([](auto& s) { s.mutable_calibration()->set_sequences(3); }), key);
  EXPECT_NE(changed([](auto& s) { s.mutable_evaluation()->set_windows(3); }), key);
  EXPECT_NE(changed([](auto& s) { s.mutable_low_rank()->set_bias_update(true); }), key);
  EXPECT_NE(changed([](auto& s) { s.mutable_factorization()->set_damping(0.5); }), key);
  EXPECT_NE(changed([](auto& s) { s.set_dtype(v1::DATA_TYPE_FLOAT32); }), key);
  EXPECT_NE(changed([](auto& s) { s.mutable_output()->set_dtype(v1::DATA_TYPE_FLOAT16); }), key);
  // The files' contents, not their names.
  for (const auto& [uri, digest] : inputs) {
    InputDigests others = inputs;
    others[uri] = "changed";
    EXPECT_NE(CellKey(spec, others), key) << uri;
  }
  v1::JobSpec moved = spec;
  moved.mutable_source()->set_uri("file:///elsewhere/m");
  inputs["file:///elsewhere/m"] = "model";
  EXPECT_EQ(CellKey(moved, inputs), key);
}

}  // namespace
}  // namespace latentforge::client
