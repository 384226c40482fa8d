#include "worker/convert/job_spec.h"

#include <limits>

#include "absl/strings/match.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/proto_json.h"

namespace latentforge::convert {
namespace {

using checkpoint::DType;
using factorize::Preconditioner;
using factorize::RankAllocation;

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

enum class Method { kUnspecified, kKvLatent, kFullMla, kLowRank };
constexpr std::array<std::pair<const char*, Method>, 4> kMethods = {{
    {"METHOD_UNSPECIFIED", Method::kUnspecified},
    {"METHOD_KV_LATENT", Method::kKvLatent},
    {"METHOD_FULL_MLA", Method::kFullMla},
    {"METHOD_LOW_RANK", Method::kLowRank},
}};

constexpr std::array<std::pair<const char*, Preconditioner>, 7> kPreconditioners = {{
    {"PRECONDITIONER_UNSPECIFIED", Preconditioner::kRootCovariance},
    {"PRECONDITIONER_IDENTITY", Preconditioner::kIdentity},
    {"PRECONDITIONER_DIAGONAL_L1", Preconditioner::kDiagonalL1},
    {"PRECONDITIONER_DIAGONAL_L2", Preconditioner::kDiagonalL2},
    {"PRECONDITIONER_DIAGONAL_HESSIAN", Preconditioner::kDiagonalHessian},
    {"PRECONDITIONER_COVARIANCE", Preconditioner::kCovariance},
    {"PRECONDITIONER_ROOT_COVARIANCE", Preconditioner::kRootCovariance},
}};

// Unspecified is uniform: it has the lowest perplexity where it was measured, at half the cache
// (README, table of methods). nullopt stands for a given profile.
constexpr std::array<std::pair<const char*, std::optional<RankAllocation>>, 5> kAllocations = {{
    {"RANK_ALLOCATION_UNSPECIFIED", RankAllocation::kUniform},
    {"RANK_ALLOCATION_UNIFORM", RankAllocation::kUniform},
    {"RANK_ALLOCATION_CARE", RankAllocation::kCare},
    {"RANK_ALLOCATION_CARE_CODE", RankAllocation::kCareCode},
    {"RANK_ALLOCATION_PROFILE", std::nullopt},
}};

constexpr std::array<std::pair<const char*, std::optional<DType>>, 4> kDataTypes = {{
    {"DATA_TYPE_UNSPECIFIED", std::nullopt},
    {"DATA_TYPE_FLOAT32", DType::kF32},
    {"DATA_TYPE_BFLOAT16", DType::kBF16},
    {"DATA_TYPE_FLOAT16", DType::kF16},
}};

// The name of a value; for two names of one value the one that says it.
template <typename T, size_t N>
const char* NameOfValue(const std::array<std::pair<const char*, T>, N>& values, const T& wanted) {
  for (size_t i = N; i-- > 0;) {
    if (values[i].second == wanted &&
        (i == 0 || !absl::EndsWith(values[i].first, "_UNSPECIFIED"))) {
      return values[i].first;
    }
  }
  return values[0].first;
}

// The member message, or an empty one; unknown keys are errors.
absl::StatusOr<JsonObject> Section(const JsonObject& parent, absl::string_view key,
                                   const std::vector<std::string>& known) {
  static const Json* const kEmpty = [] {
    static const Json empty = Json::object();
    return &empty;
  }();
  if (!parent.Has(key)) return JsonObject::Create(*kEmpty, absl::StrCat(parent.what(), ": ", key));
  LF_ASSIGN_OR_RETURN(const JsonObject object, parent.Object(key));
  LF_RETURN_IF_ERROR(object.RejectUnknownKeys(known));
  return object;
}

absl::StatusOr<std::filesystem::path> Path(const JsonObject& object, absl::string_view key) {
  LF_ASSIGN_OR_RETURN(const std::string uri, object.String(key));
  absl::StatusOr<std::filesystem::path> path = PathFromUri(uri);
  if (!path.ok()) return Annotate(path.status(), absl::StrCat(object.what(), ": ", key));
  return path;
}

// nullopt when the message is empty.
absl::StatusOr<std::optional<CorpusSpec>> ParseCorpus(const JsonObject& object) {
  LF_ASSIGN_OR_RETURN(const std::string uri, object.StringOr("uri", ""));
  if (uri.empty()) return std::nullopt;
  CorpusSpec corpus;
  LF_ASSIGN_OR_RETURN(corpus.path, Path(object, "uri"));
  LF_ASSIGN_OR_RETURN(corpus.weight, ProtoDouble(object, "weight", 0));
  if (corpus.weight < 0) return object.Wrong("weight", "a number of at least 0");
  if (corpus.weight == 0) corpus.weight = 1;
  LF_ASSIGN_OR_RETURN(corpus.text_field, object.StringOr("textField", ""));
  return corpus;
}

absl::Status ParseProfile(const JsonObject& factorization, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject profile, Section(factorization, "rankProfile", {"layers"}));
  const Json* layers = profile.Find("layers");
  if (layers == nullptr || !layers->is_array() || layers->empty()) {
    return profile.Wrong("layers", "a list with one entry a layer");
  }
  for (const Json& entry : *layers) {
    const auto index = int64_t(spec.rank_profile.size());
    LF_ASSIGN_OR_RETURN(
        const JsonObject layer,
        JsonObject::Create(entry, absl::StrCat(profile.what(), ": layers[", index, "]")));
    LF_RETURN_IF_ERROR(layer.RejectUnknownKeys({"layer", "rankK", "rankV"}));
    LF_ASSIGN_OR_RETURN(const int64_t number, ProtoInt(layer, "layer", 0, kMaxInt32, 0));
    if (number != index) {
      return absl::OutOfRangeError(absl::StrCat(layer.what(), ": layer is ", number, ", expected ",
                                                index, ": one entry a layer, in order"));
    }
    factorize::LayerRanks ranks;
    LF_ASSIGN_OR_RETURN(ranks.key, ProtoInt(layer, "rankK", 0, kMaxInt32, 0));
    LF_ASSIGN_OR_RETURN(ranks.value, ProtoInt(layer, "rankV", 0, kMaxInt32, 0));
    spec.rank_profile.push_back(ranks);
  }
  return absl::OkStatus();
}

absl::Status ParseFactorization(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject object,
                      Section(root, "factorization",
                              {"preconditioner", "damping", "alpha", "allocation", "rankProfile"}));
  LF_ASSIGN_OR_RETURN(spec.preconditioner.kind,
                      ProtoEnum(object, "preconditioner", kPreconditioners));
  LF_ASSIGN_OR_RETURN(spec.preconditioner.damping, ProtoDouble(object, "damping", kDefaultDamping));
  if (spec.preconditioner.damping < 0) return object.Wrong("damping", "a number of at least 0");
  LF_ASSIGN_OR_RETURN(spec.preconditioner.alpha, ProtoDouble(object, "alpha", kDefaultAlpha));
  if (spec.preconditioner.alpha < 0) return object.Wrong("alpha", "a number of at least 0");
  LF_ASSIGN_OR_RETURN(spec.allocation, ProtoEnum(object, "allocation", kAllocations));
  if (!spec.allocation) return ParseProfile(object, spec);
  if (object.Has("rankProfile")) {
    LF_ASSIGN_OR_RETURN(const JsonObject profile, object.Object("rankProfile"));
    const Json* layers = profile.Find("layers");
    if (layers != nullptr && !layers->empty()) {
      return object.Wrong("allocation", "RANK_ALLOCATION_PROFILE where a rank profile is given");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseCalibration(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(
      const JsonObject object,
      Section(root, "calibration", {"corpora", "sequences", "sequenceLength", "seed"}));
  const Json* corpora = object.Find("corpora");
  if (corpora == nullptr || !corpora->is_array() || corpora->empty()) {
    return object.Wrong("corpora", "a list of at least one corpus");
  }
  for (const Json& entry : *corpora) {
    const std::string what = absl::StrCat(object.what(), ": corpora[", spec.corpora.size(), "]");
    LF_ASSIGN_OR_RETURN(const JsonObject member, JsonObject::Create(entry, what));
    LF_RETURN_IF_ERROR(member.RejectUnknownKeys({"uri", "weight", "textField"}));
    LF_ASSIGN_OR_RETURN(const std::optional<CorpusSpec> corpus, ParseCorpus(member));
    if (!corpus) return member.Wrong("uri", "a file: URI or an absolute path");
    spec.corpora.push_back(*corpus);
  }
  LF_ASSIGN_OR_RETURN(spec.sequences, ProtoInt(object, "sequences", 0, kMaxInt32, 0));
  LF_ASSIGN_OR_RETURN(spec.sequence_length, ProtoInt(object, "sequenceLength", 0, kMaxInt32, 0));
  if (spec.sequences == 0) spec.sequences = kDefaultCalibrationSequences;
  if (spec.sequence_length == 0) spec.sequence_length = kDefaultSequenceLength;
  LF_ASSIGN_OR_RETURN(spec.seed, ProtoUint64(object, "seed"));
  return absl::OkStatus();
}

absl::Status ParseEvaluation(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject object,
                      Section(root, "evaluation", {"corpus", "windows", "windowLength"}));
  LF_ASSIGN_OR_RETURN(const JsonObject corpus,
                      Section(object, "corpus", {"uri", "weight", "textField"}));
  LF_ASSIGN_OR_RETURN(spec.evaluation, ParseCorpus(corpus));
  LF_ASSIGN_OR_RETURN(spec.windows, ProtoInt(object, "windows", 0, kMaxInt32, 0));
  LF_ASSIGN_OR_RETURN(spec.window_length, ProtoInt(object, "windowLength", 0, kMaxInt32, 0));
  if (spec.windows == 0) spec.windows = kDefaultEvaluationWindows;
  if (spec.window_length == 0) spec.window_length = kDefaultWindowLength;
  if (spec.window_length < 2) return object.Wrong("windowLength", "at least 2");
  return absl::OkStatus();
}

absl::Status ParseMethod(const JsonObject& root) {
  LF_ASSIGN_OR_RETURN(const Method method, ProtoEnum(root, "method", kMethods));
  if (method == Method::kUnspecified || method == Method::kKvLatent) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("job spec: method is ", NameOfValue(kMethods, method),
                   ", this version converts with METHOD_KV_LATENT only"));
}

absl::Status ParseRest(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject source, Section(root, "source", {"uri"}));
  LF_ASSIGN_OR_RETURN(spec.source, Path(source, "uri"));
  LF_ASSIGN_OR_RETURN(const JsonObject budget, Section(root, "budget", {"kvBudget"}));
  LF_ASSIGN_OR_RETURN(spec.kv_budget, ProtoDouble(budget, "kvBudget", 0));
  if (!(spec.kv_budget > 0 && spec.kv_budget <= 1)) {
    return budget.Wrong("kvBudget", "more than 0 and at most 1");
  }
  LF_ASSIGN_OR_RETURN(const JsonObject output, Section(root, "output", {"uri", "dtype"}));
  LF_ASSIGN_OR_RETURN(spec.output, Path(output, "uri"));
  LF_ASSIGN_OR_RETURN(spec.output_dtype, ProtoEnum(output, "dtype", kDataTypes));
  LF_ASSIGN_OR_RETURN(const std::optional<DType> dtype, ProtoEnum(root, "dtype", kDataTypes));
  if (dtype == DType::kF16) {
    return root.Wrong("dtype",
                      "DATA_TYPE_BFLOAT16 or DATA_TYPE_FLOAT32: float16 is for output only");
  }
  spec.dtype = dtype.value_or(DType::kBF16);
  LF_ASSIGN_OR_RETURN(spec.device, root.StringOr("device", "auto"));
  if (spec.device.empty()) spec.device = "auto";
  LF_ASSIGN_OR_RETURN(const int64_t threads, ProtoInt(root, "threads", 0, 1024, 0));
  spec.threads = static_cast<int>(threads);
  // The server keeps the deadline; here it only has to be well formed.
  return root.StringOr("deadline", "").status();
}

Json CorpusToJson(const CorpusSpec& corpus) {
  Json json = {{"uri", UriFromPath(corpus.path)}, {"weight", corpus.weight}};
  if (!corpus.text_field.empty()) json["textField"] = corpus.text_field;
  return json;
}

}  // namespace

absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LF_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(json, "job spec"));
  LF_RETURN_IF_ERROR(
      root.RejectUnknownKeys({"source", "method", "budget", "factorization", "calibration",
                              "evaluation", "output", "dtype", "device", "threads", "deadline"}));
  JobSpec spec;
  LF_RETURN_IF_ERROR(ParseMethod(root));
  LF_RETURN_IF_ERROR(ParseRest(root, spec));
  LF_RETURN_IF_ERROR(ParseFactorization(root, spec));
  LF_RETURN_IF_ERROR(ParseCalibration(root, spec));
  LF_RETURN_IF_ERROR(ParseEvaluation(root, spec));
  return spec;
}

Json JobSpecToJson(const JobSpec& spec) {
  Json factorization = {{"preconditioner", NameOfValue(kPreconditioners, spec.preconditioner.kind)},
                        {"damping", spec.preconditioner.damping},
                        {"alpha", spec.preconditioner.alpha},
                        {"allocation", NameOfValue(kAllocations, spec.allocation)}};
  if (!spec.rank_profile.empty()) {
    Json layers = Json::array();
    for (const factorize::LayerRanks& ranks : spec.rank_profile) {
      layers.push_back({{"layer", layers.size()}, {"rankK", ranks.key}, {"rankV", ranks.value}});
    }
    factorization["rankProfile"] = {{"layers", std::move(layers)}};
  }
  Json corpora = Json::array();
  for (const CorpusSpec& corpus : spec.corpora) corpora.push_back(CorpusToJson(corpus));
  Json evaluation = {{"windows", spec.windows}, {"windowLength", spec.window_length}};
  if (spec.evaluation) evaluation["corpus"] = CorpusToJson(*spec.evaluation);
  return {
      {"source", {{"uri", UriFromPath(spec.source)}}},
      {"method", "METHOD_KV_LATENT"},
      {"budget", {{"kvBudget", spec.kv_budget}}},
      {"factorization", std::move(factorization)},
      {"calibration",
       {{"corpora", std::move(corpora)},
        {"sequences", spec.sequences},
        {"sequenceLength", spec.sequence_length},
        {"seed", std::to_string(spec.seed)}}},
      {"evaluation", std::move(evaluation)},
      {"output",
       {{"uri", UriFromPath(spec.output)}, {"dtype", NameOfValue(kDataTypes, spec.output_dtype)}}},
      {"dtype", NameOfValue(kDataTypes, std::optional<DType>(spec.dtype))},
      {"device", spec.device},
      {"threads", spec.threads}};
}

}  // namespace latentforge::convert
