#include <algorithm>
#include <limits>

#include "worker/model/attention_gradient.h"
#include "worker/model/attention_products.h"

namespace latentforge::model {
namespace {

using attention::Best;
using attention::Buffer;
using attention::Heads;
using attention::Into;
using attention::Product;

constexpr int64_t kKeys = AttentionBlocks::kKeys;

// E is the type of the tensors and T that of the products.
template <typename E, typename T>
class Forward {
 public:
  Forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
          const AttentionBlocks& blocks, const AttentionResult& result)
      : b_(blocks),
        kv_heads_(k.size(1)),
        head_dim_(q.size(2)),
        scale_(attention::ScoreScale(q)),
        q_(q),
        k_(k),
        v_(v),
        out_(result.out),
        maximum_(result.maximum.defined() ? Elements<float>(result.maximum) : nullptr),
        share_(result.share.defined() ? Elements<float>(result.share) : nullptr),
        keys_(kv_heads_ * b_.key_blocks() * KeySize()),
        values_turned_(kv_heads_ * b_.key_blocks() * KeySize()) {}

  void Run() const {
    const auto make = [this] { return Scratch(b_); };
    attention::Spread<T>(kv_heads_ * b_.key_blocks(), make,
                         [&](int64_t i, const Scratch& scratch) { LoadKeys(i, scratch); });
    const int64_t count = b_.query_blocks();
    attention::Spread<T>(kv_heads_ * count, make, [&](int64_t i, const Scratch& scratch) {
      Attend(i / count, FromBothEnds(i % count, count), scratch);
    });
  }

 private:
  // A thread's memory for one block.
  struct Scratch {
    explicit Scratch(const AttentionBlocks& b)
        : scores(kKeys * b.columns()),
          maximum(b.columns()),
          sum(b.columns()),
          factor(b.columns()),
          out(b.depth * b.columns()),
          rows(b.depth * b.columns()),
          weights(kKeys * b.columns()),
          plain(b.depth * std::max(kKeys, b.columns())),
          queries(b.depth * b.columns()) {}
    Buffer<float> scores, maximum, sum, factor, out, rows;
    Buffer<T> weights, plain, queries;
  };

  int64_t KeySize() const { return kKeys * b_.depth; }

  // Block i of all KV heads' blocks of keys: K, and the transpose of V.
  void LoadKeys(int64_t i, const Scratch& scratch) const {
    const int64_t head = i / b_.key_blocks(), position = i % b_.key_blocks() * kKeys;
    k_.Load(head, position, kKeys, b_.depth, keys_.at(i * KeySize()));
    v_.Load(head, position, kKeys, b_.depth, scratch.plain.data());
    Best<T>().transpose(scratch.plain.data(), kKeys, b_.depth, values_turned_.at(i * KeySize()));
  }

  // outᵀ += Vᵀ exp(scores - maximum) over the blocks of keys, [depth, columns].
  void Attend(int64_t kv_head, int64_t block, const Scratch& s) const {
    const int64_t n = b_.columns();
    q_.LoadGroup(b_, kv_head, block, s.plain.data());
    Best<T>().transpose_pair(s.plain.data(), n, b_.depth, s.queries.data());
    std::fill_n(s.out.data(), b_.depth * n, 0.0f);
    std::fill_n(s.maximum.data(), n, std::numeric_limits<float>::lowest());
    std::fill_n(s.sum.data(), n, 0.0f);
    const Range keys = b_.KeysOf(block);
    for (int64_t key = keys.begin; key < keys.end; ++key) {
      const int64_t offset = (kv_head * b_.key_blocks() + key) * KeySize();
      Product(kKeys, n, b_.depth, keys_.at(offset), s.queries.data(), Into::kSet, s.scores.data());
      b_.Mask(block, key, s.scores.data());
      const ScoreBlock scores{s.scores.data(), nullptr, kKeys, n, scale_};
      if (Best<T>().raise_maximum(scores, s.maximum.data(), s.factor.data())) Shrink(s);
      Best<T>().weights(scores, s.maximum.data(), s.sum.data(), s.weights.data());
      Product(b_.depth, n, kKeys, values_turned_.at(offset), s.weights.data(), Into::kAdd,
              s.out.data());
    }
    Store(kv_head, block, s);
  }

  // What was summed by the old maximum, by the new one.
  void Shrink(const Scratch& s) const {
    const int64_t n = b_.columns();
    const float* const factor = s.factor.data();
    for (int64_t c = 0; c < n; ++c) *s.sum.at(c) *= factor[c];
    for (int64_t i = 0; i < b_.depth; ++i) {
      float* const row = s.out.at(i * n);
      for (int64_t c = 0; c < n; ++c) row[c] *= factor[c];
    }
  }

  void Store(int64_t kv_head, int64_t block, const Scratch& s) const {
    Best<float>().transpose(s.out.data(), b_.depth, b_.columns(), s.rows.data());
    for (int64_t c = 0; c < b_.columns(); ++c) {
      const int64_t position = block * b_.queries + c % b_.queries;
      const int64_t head = kv_head * b_.group + c / b_.queries;
      if (position >= b_.length) continue;
      const float share = 1.0f / *s.sum.at(c);
      if (maximum_ != nullptr) {
        maximum_[head * b_.length + position] = *s.maximum.at(c);
        share_[head * b_.length + position] = share;
      }
      Best<E>().scale(s.rows.at(c * b_.depth), share, head_dim_, out_.at(position, head));
    }
  }

  const AttentionBlocks b_;
  const int64_t kv_heads_, head_dim_;
  const float scale_;
  const Heads<const E> q_, k_, v_;
  const Heads<E> out_;
  float* const maximum_;  // null where nobody asks for the softmax
  float* const share_;
  // By KV head and block of keys: [kKeys, depth] and [depth, kKeys].
  const Buffer<T> keys_, values_turned_;
};

void Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
         std::optional<int64_t> window, const AttentionResult& result) {
  attention::CheckAttention(q, k, v, window);
  attention::WithProductType(q, [&]<typename E, typename T>(E, T) {
    Forward<E, T>(q, k, v, attention::BlocksOf(q, k, window), result).Run();
  });
}

}  // namespace

AttentionResult AttentionForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 std::optional<int64_t> window) {
  const at::Tensor maximum = at::empty({q.size(1), q.size(0)}, at::kFloat);
  AttentionResult result{at::empty(q.sizes(), q.options()), maximum, at::empty_like(maximum)};
  Run(q, k, v, window, result);
  return result;
}

void AttentionForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      std::optional<int64_t> window, const at::Tensor& out) {
  TORCH_CHECK(out.sizes() == q.sizes() && out.scalar_type() == q.scalar_type(),
              "attention's result has the shape and type of its queries");
  Run(q, k, v, window, {.out = out, .maximum = {}, .share = {}});
}

}  // namespace latentforge::model
