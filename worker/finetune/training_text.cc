#include "worker/finetune/training_text.h"

#include <algorithm>
#include <iterator>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status_macros.h"

namespace latentforge::finetune {
namespace {

constexpr int64_t kLargestValidationShare = 8;

// Below `bound`, evenly. Not std::uniform_int_distribution and std::shuffle, whose results
// differ between standard libraries.
uint64_t Below(std::mt19937_64& generator, uint64_t bound) {
  const uint64_t limit = -bound % bound;  // 2^64 mod bound: refuse what would favour the low ones
  uint64_t value = generator();
  while (value < limit) value = generator();
  return value % bound;
}

void Shuffle(absl::Span<int64_t> values, std::mt19937_64& generator) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[Below(generator, i)]);
}

absl::Status CheckOptions(const std::vector<calibrate::TokenStream>& corpora,
                          const TrainingOptions& options) {
  if (corpora.empty() || options.tokens < 1 || options.length < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("healing with ", options.tokens, " tokens in sequences of ", options.length,
                     " from ", corpora.size(), " texts, expected at least 1, 2 and 1"));
  }
  if (options.joined < 1 || options.batch < 1 || options.batch % options.joined != 0) {
    return absl::InvalidArgumentError(absl::StrCat("healing with ", options.batch,
                                                   " pieces a step, ", options.joined,
                                                   " of them joined, expected a multiple"));
  }
  const int64_t length = options.length * options.joined;
  for (const calibrate::TokenStream& corpus : corpora) {
    const auto tokens = static_cast<int64_t>(corpus.tokens.size());
    if (tokens >= 2 * length) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(corpus.name, " has ", tokens, " tokens, expected at least ", 2 * length,
                     ": one sequence of ", length, " to train on and one to measure on"));
  }
  return absl::OkStatus();
}

// The sequences of `joined` pieces of one corpus that are left to train on.
struct Deck {
  std::vector<int64_t> sequences;  // the first piece of each
  size_t next = 0;
  double weight = 1;
  double taken = 0;

  size_t left() const { return sequences.size() - next; }
};

// The deck that is furthest behind its weight.
size_t Behind(const std::vector<Deck>& decks) {
  const auto found = std::min_element(decks.begin(), decks.end(), [](const Deck& a, const Deck& b) {
    return a.taken / a.weight < b.taken / b.weight;
  });
  return static_cast<size_t>(found - decks.begin());
}

}  // namespace

int64_t TrainingText::Tokens(int64_t steps) const {
  return std::min(steps * options_.batch, pieces()) * options_.length;
}

TokenBatch TrainingText::Step(int64_t i) const {
  const int64_t first = i * options_.batch;
  const int64_t count = std::min(options_.batch, pieces() - first);
  TokenBatch batch{.length = options_.length};
  for (const int64_t piece : absl::MakeConstSpan(order_).subspan(size_t(first), size_t(count))) {
    const auto begin = ids_.begin() + piece * options_.length;
    batch.ids.insert(batch.ids.end(), begin, begin + options_.length);
  }
  // The end of the training may have too few pieces for a whole sequence.
  const bool whole = count % options_.joined == 0;
  if (2 * i >= steps() && whole) batch.length *= options_.joined;
  return batch;
}

class TrainingTextBuilder {
 public:
  explicit TrainingTextBuilder(const TrainingOptions& options) : generator_(Seeded(options.seed)) {
    text_.options_ = options;
    text_.validation_.length = options.length * options.joined;
  }

  // Cuts a corpus and holds back as many of its sequences.
  void Add(const calibrate::TokenStream& corpus, int64_t held_back) {
    Deck deck{.sequences = Cut(corpus), .weight = corpus.weight};
    const auto most = std::max<int64_t>(1, std::ssize(deck.sequences) / kLargestValidationShare);
    for (held_back = std::min(held_back, most); held_back > 0; --held_back) {
      const auto begin = text_.ids_.begin() + deck.sequences.back() * text_.options_.length;
      text_.validation_.ids.insert(text_.validation_.ids.end(), begin,
                                   begin + text_.validation_.length);
      deck.sequences.pop_back();
    }
    decks_.push_back(std::move(deck));
  }

  TrainingText Build() && {
    const TrainingOptions& options = text_.options_;
    const int64_t total = (options.tokens + options.length - 1) / options.length;
    const int64_t steps = (total + options.batch - 1) / options.batch;
    const int64_t single = std::min(total, (steps + 1) / 2 * options.batch);
    DealPieces(single);
    while (text_.pieces() < total) DealSequence(total - text_.pieces());
    return std::move(text_);
  }

 private:
  static std::mt19937_64 Seeded(uint64_t seed) {
    std::seed_seq mixed{uint32_t(seed), uint32_t(seed >> 32), uint32_t{0x4ea1}};
    return std::mt19937_64(mixed);
  }

  // The first pieces of a corpus' sequences, shuffled.
  std::vector<int64_t> Cut(const calibrate::TokenStream& corpus) {
    const int64_t length = text_.validation_.length;
    const auto tokens = static_cast<int64_t>(corpus.tokens.size());
    const int64_t count = tokens / length;
    const auto spare = static_cast<uint64_t>(tokens - count * length);
    const auto begin = static_cast<int64_t>(Below(generator_, spare + 1));
    const int64_t first = std::ssize(text_.ids_) / text_.options_.length;
    text_.ids_.insert(text_.ids_.end(), corpus.tokens.begin() + begin,
                      corpus.tokens.begin() + begin + count * length);
    std::vector<int64_t> sequences;
    for (int64_t i = 0; i < count; ++i) sequences.push_back(first + i * text_.options_.joined);
    Shuffle(absl::MakeSpan(sequences), generator_);
    return sequences;
  }

  int64_t Next(Deck& deck) {
    if (deck.left() == 0) {
      Shuffle(absl::MakeSpan(deck.sequences), generator_);
      deck.next = 0;
    }
    return deck.sequences[deck.next++];
  }

  // `count` pieces of a deck, apart from their neighbours.
  std::vector<int64_t> Pieces(Deck& deck, int64_t count) {
    const int64_t joined = text_.options_.joined;
    std::vector<int64_t> pieces;
    while (std::ssize(pieces) < count) {
      const auto begin = std::ssize(pieces);
      const int64_t missing = (count - begin + joined - 1) / joined;
      const auto available =
          static_cast<int64_t>(deck.left() == 0 ? deck.sequences.size() : deck.left());
      for (int64_t i = std::min(missing, available); i > 0; --i) {
        const int64_t first = Next(deck);
        for (int64_t j = 0; j < joined; ++j) pieces.push_back(first + j);
      }
      Shuffle(absl::MakeSpan(pieces).subspan(static_cast<size_t>(begin)), generator_);
    }
    pieces.resize(static_cast<size_t>(count));
    return pieces;
  }

  // The corpora take turns by weight.
  void DealPieces(int64_t total) {
    std::vector<size_t> turns;
    std::vector<int64_t> counts(decks_.size());
    for (int64_t i = 0; i < total; ++i) {
      turns.push_back(Behind(decks_));
      ++decks_[turns.back()].taken;
      ++counts[turns.back()];
    }
    std::vector<std::vector<int64_t>> hands;
    for (size_t i = 0; i < decks_.size(); ++i) hands.push_back(Pieces(decks_[i], counts[i]));
    std::vector<size_t> next(decks_.size());
    for (const size_t turn : turns) text_.order_.push_back(hands[turn][next[turn]++]);
  }

  void DealSequence(int64_t missing) {
    Deck& deck = decks_[Behind(decks_)];
    const int64_t first = Next(deck);
    const int64_t count = std::min(text_.options_.joined, missing);
    for (int64_t j = 0; j < count; ++j) text_.order_.push_back(first + j);
    deck.taken += double(count);
  }

  std::mt19937_64 generator_;
  TrainingText text_;
  std::vector<Deck> decks_;
};

absl::StatusOr<TrainingText> PrepareTraining(const std::vector<calibrate::TokenStream>& corpora,
                                             const TrainingOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(corpora, options));
  std::vector<double> weights;
  for (const calibrate::TokenStream& corpus : corpora) weights.push_back(corpus.weight);
  const int64_t sequences = (options.validation + options.joined - 1) / options.joined;
  LF_ASSIGN_OR_RETURN(const std::vector<int64_t> held,
                      calibrate::DivideSequences(sequences, weights));
  TrainingTextBuilder builder(options);
  for (size_t i = 0; i < corpora.size(); ++i) builder.Add(corpora[i], held[i]);
  return std::move(builder).Build();
}

}  // namespace latentforge::finetune
