#include "worker/finetune/training_text.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
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

void Shuffle(std::vector<int64_t>& values, std::mt19937_64& generator) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[Below(generator, i)]);
}

// The pieces of one corpus, and which comes next.
struct Deck {
  std::vector<int64_t> pieces;  // indices into TrainingText::pieces
  size_t next = 0;
  double weight = 1;
  double taken = 0;
};

absl::Status CheckOptions(const std::vector<calibrate::TokenStream>& corpora,
                          const TrainingOptions& options) {
  if (corpora.empty() || options.tokens < 1 || options.length < 2 || options.batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat("healing with ", options.tokens,
                                                   " tokens in sequences of ", options.length, ", ",
                                                   options.batch, " a step, from ", corpora.size(),
                                                   " texts, expected at least 1, 2, 1 and 1"));
  }
  for (const calibrate::TokenStream& corpus : corpora) {
    const auto tokens = static_cast<int64_t>(corpus.tokens.size());
    if (tokens >= 2 * options.length) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        corpus.name, " has ", tokens, " tokens, expected at least ", 2 * options.length,
        ": one sequence of ", options.length, " to train on and one to measure on"));
  }
  return absl::OkStatus();
}

// Cuts a corpus; the indices of its pieces in the text, shuffled.
std::vector<int64_t> Cut(const calibrate::TokenStream& corpus, int64_t length,
                         std::mt19937_64& generator, TrainingText& text) {
  const auto tokens = static_cast<int64_t>(corpus.tokens.size());
  const int64_t count = tokens / length;
  const auto spare = static_cast<uint64_t>(tokens - count * length);
  const auto begin = static_cast<int64_t>(Below(generator, spare + 1));
  const auto first = static_cast<int64_t>(text.pieces.size()) / length;
  text.pieces.insert(text.pieces.end(), corpus.tokens.begin() + begin,
                     corpus.tokens.begin() + begin + count * length);
  std::vector<int64_t> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  Shuffle(indices, generator);
  return indices;
}

// Moves the last pieces of a deck into the validation text.
void HoldBack(Deck& deck, int64_t count, TrainingText& text) {
  const auto most =
      std::max<int64_t>(1, static_cast<int64_t>(deck.pieces.size()) / kLargestValidationShare);
  for (count = std::min(count, most); count > 0; --count) {
    const auto piece = text.pieces.begin() + deck.pieces.back() * text.length;
    text.validation.ids.insert(text.validation.ids.end(), piece, piece + text.length);
    deck.pieces.pop_back();
  }
}

// The deck that is furthest behind its weight.
Deck& Behind(std::vector<Deck>& decks) {
  return *std::min_element(decks.begin(), decks.end(), [](const Deck& a, const Deck& b) {
    return a.taken / a.weight < b.taken / b.weight;
  });
}

}  // namespace

int64_t TrainingText::Tokens(int64_t steps) const {
  return std::min(steps * batch, sequences()) * length;
}

TokenBatch TrainingText::Step(int64_t i) const {
  TokenBatch step{.length = length};
  for (int64_t j = i * batch; j < std::min((i + 1) * batch, sequences()); ++j) {
    const auto piece = pieces.begin() + order[static_cast<size_t>(j)] * length;
    step.ids.insert(step.ids.end(), piece, piece + length);
  }
  return step;
}

absl::StatusOr<TrainingText> PrepareTraining(const std::vector<calibrate::TokenStream>& corpora,
                                             const TrainingOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(corpora, options));
  std::seed_seq mixed{uint32_t(options.seed), uint32_t(options.seed >> 32), uint32_t{0x4ea1}};
  std::mt19937_64 generator(mixed);
  TrainingText text{
      .length = options.length, .batch = options.batch, .validation = {.length = options.length}};
  std::vector<double> weights;
  std::vector<Deck> decks;
  for (const calibrate::TokenStream& corpus : corpora) {
    weights.push_back(corpus.weight);
    decks.push_back(
        {.pieces = Cut(corpus, options.length, generator, text), .weight = corpus.weight});
  }
  LF_ASSIGN_OR_RETURN(const std::vector<int64_t> held,
                      calibrate::DivideSequences(options.validation_sequences, weights));
  for (size_t i = 0; i < decks.size(); ++i) HoldBack(decks[i], held[i], text);
  const int64_t sequences = (options.tokens + options.length - 1) / options.length;
  for (int64_t i = 0; i < sequences; ++i) {
    Deck& deck = Behind(decks);
    if (deck.next == deck.pieces.size()) {
      Shuffle(deck.pieces, generator);
      deck.next = 0;
    }
    text.order.push_back(deck.pieces[deck.next++]);
    ++deck.taken;
  }
  return text;
}

}  // namespace latentforge::finetune
