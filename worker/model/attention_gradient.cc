#include "worker/model/attention_gradient.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "worker/model/attention_products.h"

namespace latentforge::model {
namespace {

using attention::Best;
using attention::Buffer;
using attention::Heads;
using attention::Into;
using attention::Product;

constexpr int64_t kKeys = AttentionBlocks::kKeys;

// Parts of a KV head's queries. Each sums its own gradients by keys and values, and these
// are added in order: the number of threads changes nothing.
constexpr int64_t kParts = 8;

// E is the type of the tensors.
template <typename E>
struct Operands {
  Heads<const E> q, k, v, out, out_gradient;
  const float* maximum;
  const float* share;
  Heads<E> q_gradient, k_gradient, v_gradient;
  int64_t head_dim;
  float scale;
};

// A thread's memory for one block; T is the type of the products.
template <typename T>
struct Scratch {
  explicit Scratch(const AttentionBlocks& b)
      : scores(kKeys * b.columns()),
        grown(kKeys * b.columns()),
        maximum(b.columns()),
        share(b.columns()),
        delta(b.columns()),
        sum(b.depth * std::max(kKeys, b.columns())),
        rows(b.depth * b.columns()),
        probability(kKeys * b.columns()),
        score_gradient(kKeys * b.columns()),
        pairs(kKeys * b.columns()),
        plain(b.depth * b.columns()),
        q(b.depth * b.columns()),
        q_turned(b.depth * b.columns()),
        out_gradient(b.depth * b.columns()),
        out_gradient_turned(b.depth * b.columns()) {}

  Buffer<float> scores, grown, maximum, share, delta, sum, rows;
  Buffer<T> probability, score_gradient, pairs, plain;
  // Of a block of queries: right-hand matrices [columns, depth] and [depth, columns].
  Buffer<T> q, q_turned, out_gradient, out_gradient_turned;
};

// One KV head and the heads that share it: first the blocks of keys are loaded, then the
// parts differentiated, then their sums are stored. Each in any order.
template <typename E, typename T>
class HeadGradient {
 public:
  HeadGradient(const Operands<E>& operands, const AttentionBlocks& blocks)
      : x_(operands),
        b_(blocks),
        k_(b_.key_blocks() * KeySize()),
        v_(b_.key_blocks() * KeySize()),
        k_turned_(b_.key_blocks() * KeySize()) {
    for (const Range& queries : b_.Parts(kParts)) {
      const Range keys{b_.KeysOf(queries.begin).begin, b_.KeysOf(queries.end - 1).end};
      const int64_t size = (keys.end - keys.begin) * KeySize();
      parts_.push_back({queries, keys, Buffer<float>(size), Buffer<float>(size)});
    }
  }

  int64_t parts() const { return static_cast<int64_t>(parts_.size()); }

  void LoadKeys(int64_t kv_head, int64_t block) const {
    const int64_t offset = block * KeySize();
    x_.k.Load(kv_head, block * kKeys, kKeys, b_.depth, k_.at(offset));
    x_.v.Load(kv_head, block * kKeys, kKeys, b_.depth, v_.at(offset));
    Best<T>().transpose(k_.at(offset), kKeys, b_.depth, k_turned_.at(offset));
  }

  void DifferentiatePart(int64_t kv_head, int64_t index, const Scratch<T>& scratch) const {
    const Part& part = parts_[static_cast<size_t>(index)];
    const int64_t size = (part.keys.end - part.keys.begin) * KeySize();
    std::fill_n(part.k_gradient.data(), size, 0.0f);
    std::fill_n(part.v_gradient.data(), size, 0.0f);
    for (int64_t block = part.queries.begin; block < part.queries.end; ++block) {
      LoadQueries(kv_head, block, scratch);
      const Range keys = b_.KeysOf(block);
      for (int64_t key = keys.begin; key < keys.end; ++key) {
        Differentiate(block, key, key == keys.begin ? Into::kSet : Into::kAdd, part, scratch);
      }
      StoreQueries(kv_head, block, scratch);
    }
  }

  void StoreKeys(int64_t kv_head, int64_t block, const Scratch<T>& scratch) const {
    StoreSum(kv_head, block, &Part::k_gradient, x_.scale, x_.k_gradient, scratch);
    StoreSum(kv_head, block, &Part::v_gradient, 1.0f, x_.v_gradient, scratch);
  }

 private:
  struct Part {
    Range queries;                         // blocks
    Range keys;                            // blocks that the queries see
    Buffer<float> k_gradient, v_gradient;  // [keys * kKeys, depth], not scaled
  };

  int64_t KeySize() const { return kKeys * b_.depth; }

  void LoadQueries(int64_t kv_head, int64_t block, const Scratch<T>& s) const {
    const int64_t n = b_.columns();
    const auto load = [&](const Heads<const E>& x, const Buffer<T>& out, const Buffer<T>& turned) {
      x.LoadGroup(b_, kv_head, block, s.plain.data());
      Best<T>().pair(s.plain.data(), n, b_.depth, out.data());
      Best<T>().transpose_pair(s.plain.data(), n, b_.depth, turned.data());
    };
    load(x_.q, s.q, s.q_turned);
    load(x_.out_gradient, s.out_gradient, s.out_gradient_turned);
    for (int64_t c = 0; c < n; ++c) {
      const int64_t head = kv_head * b_.group + c / b_.queries;
      const int64_t position = block * b_.queries + c % b_.queries;
      const bool inside = position < b_.length;
      // Padding has no probabilities: nothing infinite may meet its zeros.
      *s.maximum.at(c) = inside ? x_.maximum[head * b_.length + position] : 0.0f;
      *s.share.at(c) = inside ? x_.share[head * b_.length + position] : 0.0f;
      // sum_j P_ij dP_ij = dO_i O_i, what the softmax takes from each gradient of its row.
      *s.delta.at(c) = inside ? Best<E>().dot(x_.out.at(position, head),
                                              x_.out_gradient.at(position, head), x_.head_dim)
                              : 0.0f;
    }
  }

  // dQᵀ += Kᵀ dSᵀ, dK += dSᵀ Q and dV += Pᵀ dO for a block of scores.
  void Differentiate(int64_t query_block, int64_t key_block, Into into, const Part& part,
                     const Scratch<T>& s) const {
    const int64_t n = b_.columns(), offset = key_block * KeySize();
    Product(kKeys, n, b_.depth, k_.at(offset), s.q_turned.data(), Into::kSet, s.scores.data());
    Product(kKeys, n, b_.depth, v_.at(offset), s.out_gradient_turned.data(), Into::kSet,
            s.grown.data());
    b_.Mask(query_block, key_block, s.scores.data());
    Best<T>().gradients({s.scores.data(), s.grown.data(), kKeys, n, x_.scale}, s.maximum.data(),
                        s.share.data(), s.delta.data(), s.probability.data(),
                        s.score_gradient.data(), s.pairs.data());
    const T* const right = std::is_same_v<T, Bf16> ? s.pairs.data() : s.score_gradient.data();
    Product(b_.depth, n, kKeys, k_turned_.at(offset), right, into, s.sum.data());
    const int64_t into_part = (key_block - part.keys.begin) * KeySize();
    Product(kKeys, b_.depth, n, s.score_gradient.data(), s.q.data(), Into::kAdd,
            part.k_gradient.at(into_part));
    Product(kKeys, b_.depth, n, s.probability.data(), s.out_gradient.data(), Into::kAdd,
            part.v_gradient.at(into_part));
  }

  void StoreQueries(int64_t kv_head, int64_t block, const Scratch<T>& s) const {
    Best<float>().transpose(s.sum.data(), b_.depth, b_.columns(), s.rows.data());
    for (int64_t c = 0; c < b_.columns(); ++c) {
      const int64_t position = block * b_.queries + c % b_.queries;
      if (position >= b_.length) continue;
      Best<E>().scale(s.rows.at(c * b_.depth), x_.scale, x_.head_dim,
                      x_.q_gradient.at(position, kv_head * b_.group + c / b_.queries));
    }
  }

  void StoreSum(int64_t kv_head, int64_t block, Buffer<float> Part::*gradient, float factor,
                const Heads<E>& out, const Scratch<T>& s) const {
    std::fill_n(s.sum.data(), KeySize(), 0.0f);
    for (const Part& part : parts_) {
      if (block < part.keys.begin || block >= part.keys.end) continue;
      const float* const term = (part.*gradient).at((block - part.keys.begin) * KeySize());
      float* const sum = s.sum.data();
      for (int64_t i = 0; i < KeySize(); ++i) sum[i] += term[i];
    }
    const int64_t begin = block * kKeys;
    for (int64_t i = 0; i < std::min(kKeys, b_.length - begin); ++i) {
      Best<E>().scale(s.sum.at(i * b_.depth), factor, x_.head_dim, out.at(begin + i, kv_head));
    }
  }

  const Operands<E>& x_;
  const AttentionBlocks b_;
  // By blocks of keys: left-hand matrices [kKeys, depth], of K also [depth, kKeys].
  Buffer<T> k_, v_, k_turned_;
  std::vector<Part> parts_;
};

template <typename E, typename T>
void Run(const Operands<E>& operands, const AttentionBlocks& blocks, int64_t kv_heads) {
  const auto make = [&] { return Scratch<T>(blocks); };
  // As many KV heads at once as the threads need: memory grows with them.
  const int64_t at_once =
      std::min<int64_t>(kv_heads, (at::get_num_threads() + kParts - 1) / kParts);
  std::vector<HeadGradient<E, T>> heads;
  for (int64_t i = 0; i < at_once; ++i) heads.emplace_back(operands, blocks);
  for (int64_t first = 0; first < kv_heads; first += at_once) {
    const int64_t count = std::min(at_once, kv_heads - first);
    const auto spread = [&](int64_t each, const auto& f) {
      attention::Spread<T>(count * each, make, [&](int64_t i, const Scratch<T>& scratch) {
        f(heads[static_cast<size_t>(i / each)], first + i / each, i % each, scratch);
      });
    };
    using Head = HeadGradient<E, T>;
    spread(blocks.key_blocks(), [](const Head& head, int64_t kv_head, int64_t block,
                                   const Scratch<T>&) { head.LoadKeys(kv_head, block); });
    spread(heads[0].parts(), [](const Head& head, int64_t kv_head, int64_t part,
                                const Scratch<T>& s) { head.DifferentiatePart(kv_head, part, s); });
    spread(blocks.key_blocks(), [](const Head& head, int64_t kv_head, int64_t block,
                                   const Scratch<T>& s) { head.StoreKeys(kv_head, block, s); });
  }
}

}  // namespace

AttentionGradients AttentionGradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     std::optional<int64_t> window, const AttentionResult& result,
                                     const at::Tensor& out_gradient) {
  attention::CheckAttention(q, k, v, window);
  for (const at::Tensor* const x : {&result.out, &out_gradient}) {
    TORCH_CHECK(x->sizes() == q.sizes() && x->scalar_type() == q.scalar_type() && x->stride(2) == 1,
                "attention's output or its gradient does not fit");
  }
  const AttentionGradients found{at::empty(q.sizes(), q.options()),
                                 at::empty(k.sizes(), k.options()),
                                 at::empty(v.sizes(), v.options())};
  attention::WithProductType(q, [&]<typename E, typename T>(E, T) {
    const Operands<E> operands{.q = Heads<const E>(q),
                               .k = Heads<const E>(k),
                               .v = Heads<const E>(v),
                               .out = Heads<const E>(result.out),
                               .out_gradient = Heads<const E>(out_gradient),
                               .maximum = Elements<const float>(result.maximum),
                               .share = Elements<const float>(result.share),
                               .q_gradient = Heads<E>(found.q),
                               .k_gradient = Heads<E>(found.k),
                               .v_gradient = Heads<E>(found.v),
                               .head_dim = q.size(2),
                               .scale = attention::ScoreScale(q)};
    Run<E, T>(operands, attention::BlocksOf(q, k, window), k.size(1));
  });
  return found;
}

}  // namespace latentforge::model
