// How causal attention of one sequence divides into blocks, for attention_gradient.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace latentforge::model {

// Positions begin to end - 1, or blocks of them.
struct Range {
  int64_t begin;
  int64_t end;
};

// Blocks of scores, transposed: [kKeys, columns()]. The heads that share a KV head lie
// side by side: column h * queries + i is query i of the block in head h of the group.
// All blocks have one size; what lies beyond the sequence is padding.
struct AttentionBlocks {
  // The products are fastest with multiples of 32 in every dimension.
  static constexpr int64_t kKeys = 64;

  static AttentionBlocks Make(int64_t length, int64_t window, int64_t group, int64_t head_dim) {
    // Some 200 columns: a block of scores stays in the second-level cache.
    return {.length = length,
            .window = std::min(window, length),
            .group = group,
            .queries = std::max<int64_t>(32, 192 / group / 32 * 32),
            .depth = (head_dim + 31) / 32 * 32};
  }

  int64_t columns() const { return group * queries; }
  int64_t query_blocks() const { return (length + queries - 1) / queries; }
  int64_t key_blocks() const { return (length + kKeys - 1) / kKeys; }

  // The blocks of keys that some query of a block sees.
  Range KeysOf(int64_t query_block) const {
    const int64_t begin = query_block * queries;
    const int64_t last = std::min(length, begin + queries) - 1;
    return {std::max<int64_t>(0, begin - window + 1) / kKeys, last / kKeys + 1};
  }

  // Neighbouring blocks of queries in up to `count` parts of about equal work.
  std::vector<Range> Parts(int64_t count) const {
    int64_t total = 0, done = 0;
    for (int64_t i = 0; i < query_blocks(); ++i) total += KeysOf(i).end - KeysOf(i).begin;
    std::vector<Range> parts;
    for (int64_t i = 0, begin = 0; i < query_blocks(); ++i) {
      const int64_t work = KeysOf(i).end - KeysOf(i).begin;
      done += work;
      // Ends where the next block would be more over the even share than this one is under.
      const int64_t share = total * (static_cast<int64_t>(parts.size()) + 1);
      if (i + 1 < query_blocks() && count * (2 * done + work) < 2 * share) continue;
      parts.push_back({begin, i + 1});
      begin = i + 1;
    }
    return parts;
  }

  // Sets the scores that no query may use to -infinity.
  void Mask(int64_t query_block, int64_t key_block, float* scores) const {
    const int64_t first_query = query_block * queries, first_key = key_block * kKeys;
    const bool seen_whole =
        first_key + kKeys - 1 <= first_query && first_key > first_query + queries - 1 - window;
    if (seen_whole) return;
    for (int64_t k = 0; k < kKeys; ++k) {
      // Queries key to key + window - 1 see it.
      const int64_t begin = std::clamp<int64_t>(first_key + k - first_query, 0, queries);
      const int64_t end = std::clamp<int64_t>(first_key + k + window - first_query, 0, queries);
      for (int64_t h = 0; h < group; ++h) {
        float* const row = scores + k * columns() + h * queries;
        std::fill(row, row + begin, -std::numeric_limits<float>::infinity());
        std::fill(row + end, row + queries, -std::numeric_limits<float>::infinity());
      }
    }
  }

  int64_t length;
  int64_t window;   // at most length
  int64_t group;    // heads that share a KV head
  int64_t queries;  // of each head in a block
  int64_t depth;    // the head dimension, padded with zeros
};

// A walk over `count` blocks from both ends: neighbours then make equal work, where the
// work of a block grows with its position.
inline int64_t FromBothEnds(int64_t position, int64_t count) {
  return position % 2 == 0 ? position / 2 : count - 1 - position / 2;
}

}  // namespace latentforge::model
