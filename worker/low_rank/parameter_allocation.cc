#include "worker/low_rank/parameter_allocation.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::low_rank {
namespace {

// A budget this share below an integer counts as that integer: the ratio's own rounding moved it.
constexpr double kBudgetRounding = 1e-12;

// One way to store a matrix.
struct Form {
  std::optional<int64_t> rank;
  int64_t parameters = 0;
  double loss = 0;
};

// All of one matrix that are worth a thought: parameters ascend and losses descend, strictly.
using Forms = std::vector<Form>;

// From one vertex of a matrix's hull to the next.
struct Segment {
  size_t matrix = 0;
  size_t to = 0;  // index in its forms
  int64_t parameters = 0;
  double saved = 0;

  double Slope() const { return saved / double(parameters); }
};

int64_t DenseParameters(const CompressibleMatrix& matrix) {
  return matrix.dense_parameters.value_or(matrix.out * matrix.in);
}

absl::Status CheckMatrix(const CompressibleMatrix& matrix) {
  if (matrix.out < 1 || matrix.in < 1 || matrix.multiple < 1 || DenseParameters(matrix) < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "is [", matrix.out, ", ", matrix.in, "] with ranks in multiples of ", matrix.multiple,
        " and ", DenseParameters(matrix), " parameters, expected all of them to be at least 1"));
  }
  const auto length = static_cast<int64_t>(matrix.spectrum.size());
  if (length < 1 || length > std::min(matrix.out, matrix.in)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has a spectrum of ", length, " values, expected 1 to ", std::min(matrix.out, matrix.in)));
  }
  for (const double value : matrix.spectrum) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("has ", value, " in its spectrum, expected finite numbers of at least 0"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAllocation(const std::vector<CompressibleMatrix>& matrices, double ratio) {
  if (!(ratio >= 0 && ratio < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ratio is ", ratio, ", expected at least 0 and less than 1"));
  }
  if (matrices.empty()) return absl::InvalidArgumentError("there are no matrices to allocate to");
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (const absl::Status status = CheckMatrix(matrices[i]); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("matrix ", i, " ", status.message()));
    }
  }
  return absl::OkStatus();
}

Forms FormsOf(const CompressibleMatrix& matrix) {
  const auto length = static_cast<int64_t>(matrix.spectrum.size());
  std::vector<double> tail(length + 1, 0.0);  // loss of each rank, summed from the smallest up
  for (int64_t rank = length - 1; rank >= 0; --rank) {
    tail[rank] = tail[rank + 1] + matrix.spectrum[rank];
  }
  const int64_t dense = DenseParameters(matrix);
  Forms forms;
  for (int64_t rank = matrix.multiple; rank <= std::min(matrix.out, matrix.in);
       rank += matrix.multiple) {
    const int64_t parameters = checkpoint::Parameters(matrix.rule, matrix.out, matrix.in, rank);
    const double loss = tail[std::min(rank, length)];
    if (parameters >= dense) break;
    if (forms.empty() || loss < forms.back().loss) forms.push_back({rank, parameters, loss});
  }
  if (forms.empty() || forms.back().loss > 0) forms.push_back({std::nullopt, dense, 0});
  return forms;
}

// The segments of the lower convex hull of (parameters, loss), by descending slope.
std::vector<Segment> HullOf(const Forms& forms, size_t matrix) {
  const auto segment = [&](size_t from, size_t to) {
    return Segment{matrix, to, forms[to].parameters - forms[from].parameters,
                   forms[from].loss - forms[to].loss};
  };
  std::vector<size_t> vertices = {0};
  std::vector<Segment> hull;
  for (size_t next = 1; next < forms.size(); ++next) {
    while (!hull.empty() && segment(vertices.back(), next).Slope() >= hull.back().Slope()) {
      hull.pop_back();
      vertices.pop_back();
    }
    hull.push_back(segment(vertices.back(), next));
    vertices.push_back(next);
  }
  return hull;
}

// Forms chosen so far, and the parameters that are left.
struct Choice {
  std::vector<size_t> form;  // of each matrix
  int64_t left = 0;
};

double LossOf(const std::vector<Forms>& forms, const Choice& choice) {
  double loss = 0;
  for (size_t i = 0; i < forms.size(); ++i) loss += forms[i][choice.form[i]].loss;
  return loss;
}

// Takes segments by descending slope up to the first that does not fit; returns the loss of the
// relaxed problem, which takes a part of that one.
double FillHulls(const std::vector<Forms>& forms, Choice& choice) {
  std::vector<Segment> segments;
  for (size_t i = 0; i < forms.size(); ++i) {
    const std::vector<Segment> hull = HullOf(forms[i], i);
    segments.insert(segments.end(), hull.begin(), hull.end());
  }
  // Slopes descend within a matrix, and the order of equal ones stays.
  std::stable_sort(segments.begin(), segments.end(),
                   [](const Segment& a, const Segment& b) { return a.Slope() > b.Slope(); });
  for (const Segment& segment : segments) {
    if (segment.parameters > choice.left) {
      return LossOf(forms, choice) - double(choice.left) * segment.Slope();
    }
    choice.form[segment.matrix] = segment.to;
    choice.left -= segment.parameters;
  }
  return LossOf(forms, choice);
}

// Takes the single step that saves the most, again and again while one fits.
void SpendRest(const std::vector<Forms>& forms, Choice& choice) {
  while (true) {
    double most = 0;
    size_t matrix = 0;
    size_t to = 0;
    for (size_t i = 0; i < forms.size(); ++i) {
      const Form& now = forms[i][choice.form[i]];
      // The last form that fits loses the least.
      const auto beyond = std::partition_point(
          forms[i].begin() + choice.form[i], forms[i].end(),
          [&](const Form& form) { return form.parameters - now.parameters <= choice.left; });
      const double saved = now.loss - std::prev(beyond)->loss;
      if (saved > most) {
        most = saved;
        matrix = i;
        to = static_cast<size_t>(std::prev(beyond) - forms[i].begin());
      }
    }
    if (most == 0) return;
    choice.left -= forms[matrix][to].parameters - forms[matrix][choice.form[matrix]].parameters;
    choice.form[matrix] = to;
  }
}

absl::Status TooLittle(double ratio, int64_t least, int64_t dense) {
  // Rounded down, so that the ratio as printed is one that can be met.
  const double largest = std::floor((1 - double(least) / double(dense)) * 1e4) / 1e4;
  return absl::OutOfRangeError(absl::StrCat("ratio is ", ratio, ", expected at most ",
                                            std::max(0.0, largest), ": the least forms take ",
                                            least, " of ", dense, " parameters"));
}

}  // namespace

absl::StatusOr<ParameterAllocation> AllocateParameters(
    const std::vector<CompressibleMatrix>& matrices, double ratio) {
  LF_RETURN_IF_ERROR(CheckAllocation(matrices, ratio));
  std::vector<Forms> forms;
  int64_t dense = 0;
  int64_t least = 0;
  for (const CompressibleMatrix& matrix : matrices) {
    forms.push_back(FormsOf(matrix));
    dense += DenseParameters(matrix);
    least += forms.back().front().parameters;
  }
  const auto granted =
      static_cast<int64_t>(std::floor((1 - ratio) * double(dense) * (1 + kBudgetRounding)));
  if (least > granted) return TooLittle(ratio, least, dense);

  Choice choice{.form = std::vector<size_t>(forms.size(), 0), .left = granted - least};
  ParameterAllocation result;
  result.least_loss = std::max(FillHulls(forms, choice), 0.0);
  SpendRest(forms, choice);
  result.parameters = granted - choice.left;
  result.loss = LossOf(forms, choice);
  for (size_t i = 0; i < forms.size(); ++i) result.ranks.push_back(forms[i][choice.form[i]].rank);
  return result;
}

}  // namespace latentforge::low_rank
