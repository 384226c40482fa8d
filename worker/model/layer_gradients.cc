#include "worker/model/layer_gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/model/attention.h"
#include "worker/model/attention_gradient.h"
#include "worker/model/layer_ops.h"
#include "worker/model/tensor_rows.h"

namespace latentforge::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// [..., width] as rows with a contiguous last dimension; copied only where it must be.
at::Tensor AsRows(const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

// LibTorch calls these two for each operation; what is saved is freed with the graph.
struct RmsNormNode : torch::autograd::Function<RmsNormNode> {
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          double epsilon) {
    const at::Tensor rows = AsRows(x);
    const at::Tensor out = at::empty(x.sizes(), x.options());
    RmsNorm(rows, weight, epsilon, out.view(rows.sizes()));
    context->save_for_backward({x, weight});
    context->saved_data["epsilon"] = epsilon;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = AsRows(saved[0]);
    const at::Tensor gradient = AsRows(gradients[0]);
    const auto epsilon = static_cast<float>(context->saved_data["epsilon"].toDouble());
    const at::Tensor out = at::empty(x.sizes(), x.options());
    WithElementType(x, [&]<typename T>(T) {
      RmsNormGradientRows<T>(RowsOf<const T>(x), Elements<const T>(saved[1]),
                             RowsOf<const T>(gradient), epsilon, RowsOf<T>(out));
    });
    return {out.view(saved[0].sizes()), Variable(), Variable()};
  }
};

struct Activation : torch::autograd::Function<Activation> {
  static Variable forward(AutogradContext* context, const Variable& gate_up) {
    const at::Tensor rows = AsRows(gate_up);
    const at::Tensor out = at::empty({rows.size(0), rows.size(1) / 2}, rows.options());
    SiluMultiply(rows, out);
    context->save_for_backward({gate_up});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor gate_up = AsRows(context->get_saved_variables()[0]);
    const at::Tensor gradient = AsRows(gradients[0]);
    const at::Tensor out = at::empty(gate_up.sizes(), gate_up.options());
    WithElementType(gate_up, [&]<typename T>(T) {
      SiluMultiplyGradientRows<T>(RowsOf<const T>(gate_up), RowsOf<const T>(gradient),
                                  RowsOf<T>(out));
    });
    return {out};
  }
};

// A copy of x, rotated.
at::Tensor Rotated(const at::Tensor& x, int64_t length, const RopeTable& table) {
  const at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
  ApplyRope(out, length, table);
  return out;
}

struct Rotation : torch::autograd::Function<Rotation> {
  static Variable forward(AutogradContext* context, const Variable& x, int64_t length,
                          const RopeTable& table, const RopeTable& back) {
    context->saved_data["length"] = length;
    // The tables outlive the graph's way back, and take no part in it.
    context->saved_data["cos"] = back.cos;
    context->saved_data["sin"] = back.sin;
    return Rotated(x, length, table);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    const RopeTable back{saved["cos"].toTensor(), saved["sin"].toTensor()};
    return {Rotated(gradients[0], saved["length"].toInt(), back), Variable(), Variable(),
            Variable()};
  }
};

// [T, heads, d] with a contiguous last dimension; copied only where it must be.
at::Tensor AsHeads(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

struct Attention : torch::autograd::Function<Attention> {
  static Variable forward(AutogradContext* context, const Variable& q, const Variable& k,
                          const Variable& v, std::optional<int64_t> window) {
    const AttentionResult result = AttentionForward(AsHeads(q), AsHeads(k), AsHeads(v), window);
    const at::Tensor out = result.out.flatten(1);
    context->save_for_backward({q, k, v, out});
    context->saved_data["maximum"] = result.maximum;
    context->saved_data["share"] = result.share;
    context->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    auto& data = context->saved_data;
    const at::Tensor& q = saved[0];
    const AttentionResult result{saved[3].view(q.sizes()), data["maximum"].toTensor(),
                                 data["share"].toTensor()};
    const AttentionGradients found = AttentionGradient(
        AsHeads(q), AsHeads(saved[1]), AsHeads(saved[2]), data["window"].toOptional<int64_t>(),
        result, AsHeads(gradients[0].reshape(q.sizes())));
    return {found.q, found.k, found.v, Variable()};
  }
};

// True where query i (row) sees key j (column): i - window < j <= i.
at::Tensor WindowMask(int64_t length, int64_t window, at::Device device) {
  const at::Tensor position = at::arange(length, at::TensorOptions(at::kLong).device(device));
  const at::Tensor distance = position.unsqueeze(1) - position.unsqueeze(0);
  return distance.ge(0).logical_and(distance.lt(window));
}

}  // namespace

at::Tensor RmsNormGraph(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  TORCH_CHECK(!weight.requires_grad(), "the weight of a norm is a constant here");
  if (HasRowKernels(x)) return RmsNormNode::apply(x, weight, epsilon);
  const at::Tensor wide = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  const at::Tensor scale = (wide.square().mean(-1, /*keepdim=*/true) + epsilon).rsqrt();
  return (wide * scale).to(x.scalar_type()) * weight;
}

at::Tensor NormGraph(const at::Tensor& x, const Norm& norm, double epsilon) {
  if (!norm.defined()) return x;
  if (!norm.bias.defined()) return RmsNormGraph(x, norm.weight, epsilon);
  return at::layer_norm(x, norm.weight.sizes(), norm.weight, norm.bias, epsilon);
}

at::Tensor SiluMultiplyGraph(const at::Tensor& gate_up) {
  if (HasRowKernels(gate_up)) return Activation::apply(gate_up);
  const int64_t width = gate_up.size(1) / 2;
  return at::silu(gate_up.narrow(1, 0, width)) * gate_up.narrow(1, width, width);
}

at::Tensor RopeGraph(const at::Tensor& x, int64_t length, const RopeTable& table,
                     const RopeTable& back) {
  if (HasRowKernels(x)) return Rotation::apply(x, length, table, back);
  const int64_t half = table.cos.size(1);
  const at::Tensor cos = table.cos.narrow(0, 0, length).unsqueeze(1);  // [T, 1, half]
  const at::Tensor sin = table.sin.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor heads = x.unflatten(0, {-1, length}).unflatten(2, {-1, 2 * half});
  const at::Tensor a = heads.narrow(3, 0, half);
  const at::Tensor b = heads.narrow(3, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, -1).reshape(x.sizes());
}

at::Tensor AttentionGraph(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          std::optional<int64_t> window) {
  if (HasRowKernels(q)) return Attention::apply(q, k, v, window);
  std::optional<at::Tensor> mask;
  if (window && *window < q.size(0)) mask = WindowMask(q.size(0), *window, q.device());
  const int64_t kv_heads = k.size(1);
  const int64_t group = q.size(1) / kv_heads;
  return at::scaled_dot_product_attention(ByGroup(q, kv_heads, group), ByGroup(k, kv_heads, group),
                                          ByGroup(v, kv_heads, group), mask, /*dropout_p=*/0.0,
                                          /*is_causal=*/!mask.has_value())
      .permute({2, 0, 1, 3})
      .reshape({q.size(0), q.size(1) * q.size(2)});
}

RopeTable InverseRope(const RopeTable& table) { return {table.cos, table.sin.neg()}; }

}  // namespace latentforge::model
