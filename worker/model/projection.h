// A linear map of the model, dense or of low rank, and its products.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace latentforge::model {

// y = weight x + bias, or y = up (down x) + bias.
struct Projection {
  at::Tensor weight;  // [out, in]; undefined when of low rank
  at::Tensor down;    // [r, in]; undefined when dense
  at::Tensor up;      // [out, r]; undefined when dense
  at::Tensor bias;    // [out]; undefined when there is none

  bool low_rank() const { return down.defined(); }
  bool defined() const { return weight.defined() || down.defined(); }

  // Takes the place of the weight, where there are factors; the bias stays.
  void Replace(const at::Tensor& new_down, const at::Tensor& new_up) {
    if (!new_down.defined()) return;
    weight = at::Tensor();
    down = new_down;
    up = new_up;
  }

  // What x is multiplied by first: `down`, or the weight.
  const at::Tensor& first() const { return low_rank() ? down : weight; }

  // Maps rows of `in` to rows of `out`: its tensors are there, of two dimensions (the bias of one),
  // and fit together.
  bool Maps(int64_t in, int64_t out) const;
};

// y [rows, out] for x [rows, in]; differentiable where at::GradMode is on.
at::Tensor Project(const at::Tensor& x, const Projection& projection);

// The same into `out`, whose rows may lie further apart than they are long.
void ProjectInto(const at::Tensor& x, const Projection& projection, at::Tensor out);

// sum += the same; the sum of a dense map is rounded once.
void AddProjected(at::Tensor sum, const at::Tensor& x, const Projection& projection);

// The gradient by x [rows, in] from the one by y [rows, out].
at::Tensor ProjectBack(const at::Tensor& gradient, const Projection& projection);

// `down` [r, in] of a map with a block identity from what is stored of it, `rest` [r, in - r]:
// column order[j] is the j-th unit vector for j < r, and column j - r of `rest` for the others, so
// that down x = x[order[:r]] + rest x[order[r:]] (docs/artifact.md). `order` [in] is a permutation
// (int64, on the device of `rest`). The products above then need no gather and no case of their
// own, forward or back, at the price of r x r multiplications by ones and zeros a row: this code
// measures losses. transformers' model code gathers.
at::Tensor WithIdentity(const at::Tensor& rest, const at::Tensor& order);

}  // namespace latentforge::model
