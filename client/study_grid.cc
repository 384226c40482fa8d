#include "client/study_grid.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/field_text.h"
#include "proto/enum_text.h"

namespace latentforge::client {
namespace {

using Texts = std::vector<std::string>;

// The rows of the slides' tables, and ours. Every map for itself but in LatentLLM.
struct NamedRow {
  const char* name;
  v1::Preconditioner preconditioner;
  v1::JointMode joint;
};
constexpr NamedRow kNamedRows[] = {
    {"plain SVD", v1::PRECONDITIONER_IDENTITY, v1::JOINT_MODE_LOCAL},
    {"Hessian", v1::PRECONDITIONER_DIAGONAL_HESSIAN, v1::JOINT_MODE_LOCAL},
    {"l1", v1::PRECONDITIONER_DIAGONAL_L1, v1::JOINT_MODE_LOCAL},
    {"l2", v1::PRECONDITIONER_DIAGONAL_L2, v1::JOINT_MODE_LOCAL},
    {"Cov", v1::PRECONDITIONER_COVARIANCE, v1::JOINT_MODE_LOCAL},
    {"RootCov", v1::PRECONDITIONER_ROOT_COVARIANCE, v1::JOINT_MODE_LOCAL},
    {"LatentLLM", v1::PRECONDITIONER_ROOT_COVARIANCE, v1::JOINT_MODE_JOINT},
    {"Fisher, global ranks", v1::PRECONDITIONER_FISHER, v1::JOINT_MODE_LOCAL},
};

// The columns of the slides' tables.
const Texts kRatios = {"0.1", "0.2", "0.3", "0.4", "0.5"};

// A row: its name and what it sets.
struct Row {
  std::string name;
  v1::JobSpec settings;  // factorization and low_rank alone
};

absl::Status CheckOnce(absl::string_view flag, const Texts& texts) {
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    if (seen.insert(text).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " is \"", text, "\" twice, expected each value once"));
  }
  return absl::OkStatus();
}

// The numbers of enum values; `otherwise` without texts.
absl::StatusOr<std::vector<int>> ParseList(const char* flag, const Texts& texts,
                                           const google::protobuf::EnumDescriptor* type,
                                           int otherwise) {
  if (texts.empty()) return std::vector<int>{otherwise};
  std::vector<int> values;
  Texts names;
  for (const std::string& text : texts) {
    LF_ASSIGN_OR_RETURN(const int value, ParseEnum(*type, flag, text));
    values.push_back(value);
    names.push_back(ShortEnumName(*type->FindValueByNumber(value)));
  }
  LF_RETURN_IF_ERROR(CheckOnce(flag, names));
  return values;
}

absl::StatusOr<std::vector<double>> ParseRatios(const Texts& texts) {
  std::vector<double> ratios;
  for (const std::string& text : texts.empty() ? kRatios : texts) {
    double ratio = 0;
    if (!absl::SimpleAtod(text, &ratio) || !(ratio > 0 && ratio < 1)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--ratios is \"", text, "\", expected numbers in (0, 1), such as 0.1,0.3,0.5"));
    }
    if (std::find(ratios.begin(), ratios.end(), ratio) != ratios.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--ratios is \"", text, "\" twice, expected each value once"));
    }
    ratios.push_back(ratio);
  }
  std::sort(ratios.begin(), ratios.end());
  return ratios;
}

absl::StatusOr<std::vector<bool>> ParseSwitches(const char* flag, const Texts& texts) {
  if (texts.empty()) return std::vector<bool>{false};
  std::vector<bool> values;
  for (const std::string& text : texts) {
    if (text != "off" && text != "on") {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, " is \"", text, "\", expected off, on or both: off,on"));
    }
    values.push_back(text == "on");
  }
  LF_RETURN_IF_ERROR(CheckOnce(flag, texts));
  return values;
}

v1::JobSpec SettingsOf(v1::Preconditioner preconditioner, v1::JointMode query_key,
                       v1::JointMode value_output) {
  v1::JobSpec settings;
  settings.mutable_factorization()->set_preconditioner(preconditioner);
  settings.mutable_factorization()->set_allocation(preconditioner == v1::PRECONDITIONER_FISHER
                                                       ? v1::RANK_ALLOCATION_GLOBAL
                                                       : v1::RANK_ALLOCATION_UNIFORM);
  settings.mutable_low_rank()->set_query_key(query_key);
  settings.mutable_low_rank()->set_value_output(value_output);
  return settings;
}

void AddNamedRows(std::vector<Row>& rows) {
  for (const NamedRow& row : kNamedRows) {
    rows.push_back({row.name, SettingsOf(row.preconditioner, row.joint, row.joint)});
  }
}

// Joint modes are root-covariance's: with other preconditioners they are local, and refused only
// where that leaves nothing of what was asked for.
absl::Status AddCombinations(const StudyFlags& flags, std::vector<Row>& rows) {
  LF_ASSIGN_OR_RETURN(
      const std::vector<int> preconditioners,
      ParseList("--preconditioners", flags.preconditioners, v1::Preconditioner_descriptor(),
                v1::PRECONDITIONER_ROOT_COVARIANCE));
  const bool root = std::find(preconditioners.begin(), preconditioners.end(),
                              v1::PRECONDITIONER_ROOT_COVARIANCE) != preconditioners.end();
  const auto modes = [&](const char* flag, const Texts& texts) -> absl::StatusOr<std::vector<int>> {
    LF_ASSIGN_OR_RETURN(std::vector<int> values,
                        ParseList(flag, texts, v1::JointMode_descriptor(), v1::JOINT_MODE_LOCAL));
    const bool joint =
        std::find(values.begin(), values.end(), v1::JOINT_MODE_JOINT) != values.end();
    if (!joint || root) return values;
    return absl::InvalidArgumentError(absl::StrCat(
        flag, " is \"joint\", expected local without root-covariance in --preconditioners"));
  };
  LF_ASSIGN_OR_RETURN(const std::vector<int> query_keys, modes("--query-key", flags.query_key));
  LF_ASSIGN_OR_RETURN(const std::vector<int> value_outputs,
                      modes("--value-output", flags.value_output));
  for (const int preconditioner : preconditioners) {
    const bool joins = preconditioner == v1::PRECONDITIONER_ROOT_COVARIANCE;
    for (const int query_key : joins ? query_keys : std::vector<int>{v1::JOINT_MODE_LOCAL}) {
      for (const int value_output :
           joins ? value_outputs : std::vector<int>{v1::JOINT_MODE_LOCAL}) {
        std::string name = ShortEnumName(static_cast<v1::Preconditioner>(preconditioner));
        if (query_key == v1::JOINT_MODE_JOINT) name += ", joint query-key";
        if (value_output == v1::JOINT_MODE_JOINT) name += ", joint value-output";
        rows.push_back({name, SettingsOf(static_cast<v1::Preconditioner>(preconditioner),
                                         static_cast<v1::JointMode>(query_key),
                                         static_cast<v1::JointMode>(value_output))});
      }
    }
  }
  return absl::OkStatus();
}

// Every row with every combination of what rows are repeated for; what differs from the default
// stands in its name.
absl::StatusOr<std::vector<Row>> Repeat(const std::vector<Row>& rows, const StudyFlags& flags) {
  LF_ASSIGN_OR_RETURN(const std::vector<int> layouts,
                      ParseList("--factor-layouts", flags.factor_layouts,
                                v1::FactorLayout_descriptor(), v1::FACTOR_LAYOUT_BLOCK_IDENTITY));
  LF_ASSIGN_OR_RETURN(
      const std::vector<int> mlps,
      ParseList("--mlp", flags.mlp, v1::MlpCompression_descriptor(), v1::MLP_COMPRESSION_LOCAL));
  LF_ASSIGN_OR_RETURN(const std::vector<int> activations,
                      ParseList("--activations", flags.activations,
                                v1::ActivationSource_descriptor(), v1::ACTIVATION_SOURCE_ORIGINAL));
  LF_ASSIGN_OR_RETURN(const std::vector<bool> biases,
                      ParseSwitches("--bias-update", flags.bias_update));
  std::vector<Row> repeated;
  for (const Row& row : rows) {
    for (const int layout : layouts) {
      for (const int mlp : mlps) {
        for (const bool bias : biases) {
          for (const int source : activations) {
            Row& added = repeated.emplace_back(row);
            v1::LowRankSpec& spec = *added.settings.mutable_low_rank();
            spec.set_layout(static_cast<v1::FactorLayout>(layout));
            spec.set_mlp(static_cast<v1::MlpCompression>(mlp));
            spec.set_bias_update(bias);
            spec.set_activations(static_cast<v1::ActivationSource>(source));
            if (layout != v1::FACTOR_LAYOUT_BLOCK_IDENTITY) {
              absl::StrAppend(&added.name, ", ", ShortEnumName(spec.layout()), " factors");
            }
            if (mlp != v1::MLP_COMPRESSION_LOCAL) {
              absl::StrAppend(&added.name, ", MLP by ", ShortEnumName(spec.mlp()));
            }
            if (bias) absl::StrAppend(&added.name, ", bias update");
            if (source != v1::ACTIVATION_SOURCE_ORIGINAL) {
              absl::StrAppend(&added.name, ", ", ShortEnumName(spec.activations()), " activations");
            }
          }
        }
      }
    }
  }
  return repeated;
}

// How much the statistics of a row hold that those of others lack.
int Needs(const v1::JobSpec& spec) {
  switch (spec.factorization().preconditioner()) {
    case v1::PRECONDITIONER_DIAGONAL_HESSIAN:
    case v1::PRECONDITIONER_COVARIANCE:
      return 2;  // the covariance of what down is fed
    default:
      return spec.low_rank().query_key() == v1::JOINT_MODE_JOINT ? 1 : 0;  // rows for QK-norm
  }
}

absl::StatusOr<v1::JobSpec> SharedSpec(const StudyFlags& flags, double ratio,
                                       const FileAccess& files) {
  SpecFlags spec = flags.spec;
  spec.method = "low-rank";
  spec.low_rank.ratio = ratio;
  spec.out = "study";  // each cell has its own
  LF_ASSIGN_OR_RETURN(JobDraft draft, BuildDraft(spec, files));
  if (draft.spec.evaluation().corpus().uri().empty()) {
    return absl::InvalidArgumentError(
        "--evaluate is missing: name a text file to measure perplexity on");
  }
  if (spec.output_dtype) {
    draft.spec.mutable_output()->clear_uri();
  } else {
    draft.spec.clear_output();
  }
  return draft.spec;
}

}  // namespace

absl::StatusOr<StudyGrid> BuildGrid(const StudyFlags& flags, const FileAccess& files) {
  StudyGrid grid;
  LF_ASSIGN_OR_RETURN(grid.ratios, ParseRatios(flags.ratios));
  std::vector<Row> rows;
  const bool combined =
      !flags.preconditioners.empty() || !flags.query_key.empty() || !flags.value_output.empty();
  if (flags.named_rows || !combined) AddNamedRows(rows);
  if (combined) LF_RETURN_IF_ERROR(AddCombinations(flags, rows));
  LF_ASSIGN_OR_RETURN(rows, Repeat(rows, flags));
  LF_ASSIGN_OR_RETURN(const v1::JobSpec shared, SharedSpec(flags, grid.ratios[0], files));
  std::set<std::string> seen;  // a combination may be a named row
  for (const Row& row : rows) {
    if (!seen.insert(row.settings.SerializeAsString()).second) continue;
    grid.rows.push_back(row.name);
    for (const double ratio : grid.ratios) {
      StudyCell cell{.row = row.name, .ratio = ratio, .spec = shared};
      cell.spec.MergeFrom(row.settings);
      cell.spec.mutable_budget()->set_parameter_ratio(ratio);
      grid.cells.push_back(std::move(cell));
    }
  }
  std::stable_sort(
      grid.cells.begin(), grid.cells.end(),
      [](const StudyCell& a, const StudyCell& b) { return Needs(a.spec) > Needs(b.spec); });
  return grid;
}

}  // namespace latentforge::client
