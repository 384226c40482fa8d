#include "worker/model/projection.h"

#include <ATen/ATen.h>

namespace latentforge::model {
namespace {

bool HasShape(const at::Tensor& tensor, at::IntArrayRef shape) {
  return tensor.defined() && tensor.sizes() == shape;
}

}  // namespace

bool Projection::Maps(int64_t in, int64_t out) const {
  if (bias.defined() && !HasShape(bias, {out})) return false;
  if (!low_rank()) return HasShape(weight, {out, in});
  return down.dim() == 2 && HasShape(down, {down.size(0), in}) && HasShape(up, {out, down.size(0)});
}

at::Tensor Project(const at::Tensor& x, const Projection& p) {
  const at::Tensor y = p.low_rank() ? x.mm(p.down.t()).mm(p.up.t()) : x.mm(p.weight.t());
  return p.bias.defined() ? y + p.bias : y;
}

void ProjectInto(const at::Tensor& x, const Projection& p, at::Tensor out) {
  if (p.low_rank()) {
    at::mm_out(out, x.mm(p.down.t()), p.up.t());
  } else {
    at::mm_out(out, x, p.weight.t());
  }
  if (p.bias.defined()) out.add_(p.bias);
}

void AddProjected(at::Tensor sum, const at::Tensor& x, const Projection& p) {
  if (p.low_rank()) {
    at::addmm_out(sum, sum, x.mm(p.down.t()), p.up.t());
  } else {
    at::addmm_out(sum, sum, x, p.weight.t());
  }
  if (p.bias.defined()) sum.add_(p.bias);
}

at::Tensor ProjectBack(const at::Tensor& gradient, const Projection& p) {
  return p.low_rank() ? gradient.mm(p.up).mm(p.down) : gradient.mm(p.weight);
}

at::Tensor WithIdentity(const at::Tensor& rest, const at::Tensor& order) {
  const int64_t rank = rest.size(0);
  const at::Tensor down = at::empty({rank, order.size(0)}, rest.options());
  down.index_copy_(1, order.narrow(0, 0, rank), at::eye(rank, rest.options()));
  return down.index_copy_(1, order.narrow(0, rank, rest.size(1)), rest);
}

}  // namespace latentforge::model
