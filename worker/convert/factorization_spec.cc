#include "worker/convert/factorization_spec.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/convert/preconditioner_names.h"
#include "worker/convert/proto_json.h"

namespace latentforge::convert {
namespace {

using factorize::LayerRanks;
using factorize::Preconditioner;
using factorize::RankAllocation;

enum class Allocation { kUnspecified, kUniform, kCare, kCareCode, kProfile, kGlobal };
constexpr std::array<std::pair<const char*, Allocation>, 6> kAllocations = {{
    {"RANK_ALLOCATION_UNSPECIFIED", Allocation::kUnspecified},
    {"RANK_ALLOCATION_UNIFORM", Allocation::kUniform},
    {"RANK_ALLOCATION_CARE", Allocation::kCare},
    {"RANK_ALLOCATION_CARE_CODE", Allocation::kCareCode},
    {"RANK_ALLOCATION_PROFILE", Allocation::kProfile},
    {"RANK_ALLOCATION_GLOBAL", Allocation::kGlobal},
}};

enum class Layout { kUnspecified, kJoint, kSeparate };
constexpr std::array<std::pair<const char*, Layout>, 3> kLayouts = {{
    {"LATENT_LAYOUT_UNSPECIFIED", Layout::kUnspecified},
    {"LATENT_LAYOUT_JOINT", Layout::kJoint},
    {"LATENT_LAYOUT_SEPARATE", Layout::kSeparate},
}};

// Unspecified gives what was measured best: docs/quality.md.
std::optional<RankAllocation> Resolve(Allocation allocation, bool loss_aware) {
  switch (allocation) {
    case Allocation::kUnspecified:
      return loss_aware ? RankAllocation::kGlobal : RankAllocation::kUniform;
    case Allocation::kUniform:
      return RankAllocation::kUniform;
    case Allocation::kCare:
      return RankAllocation::kCare;
    case Allocation::kCareCode:
      return RankAllocation::kCareCode;
    case Allocation::kGlobal:
      return RankAllocation::kGlobal;
    case Allocation::kProfile:
      break;
  }
  return std::nullopt;
}

Allocation NameableAllocation(const std::optional<RankAllocation>& allocation) {
  if (!allocation) return Allocation::kProfile;
  switch (*allocation) {
    case RankAllocation::kUniform:
      return Allocation::kUniform;
    case RankAllocation::kCare:
      return Allocation::kCare;
    case RankAllocation::kCareCode:
      return Allocation::kCareCode;
    case RankAllocation::kGlobal:
      break;
  }
  return Allocation::kGlobal;
}

bool IsCare(const std::optional<RankAllocation>& allocation) {
  return allocation == RankAllocation::kCare || allocation == RankAllocation::kCareCode;
}

absl::StatusOr<LayerRanks> ParseLayerRanks(const JsonObject& layer, int64_t index) {
  LF_RETURN_IF_ERROR(layer.RejectUnknownKeys({"layer", "rankK", "rankV", "rankKv"}));
  LF_ASSIGN_OR_RETURN(const int64_t number, ProtoInt(layer, "layer", 0, INT32_MAX, 0));
  if (number != index) {
    return absl::OutOfRangeError(absl::StrCat(layer.what(), ": layer is ", number, ", expected ",
                                              index, ": one entry a layer, in order"));
  }
  LayerRanks ranks;
  LF_ASSIGN_OR_RETURN(ranks.key, ProtoInt(layer, "rankK", 0, INT32_MAX, 0));
  LF_ASSIGN_OR_RETURN(ranks.value, ProtoInt(layer, "rankV", 0, INT32_MAX, 0));
  LF_ASSIGN_OR_RETURN(ranks.joint, ProtoInt(layer, "rankKv", 0, INT32_MAX, 0));
  return ranks;
}

absl::Status ParseProfile(const JsonObject& factorization, FactorizationSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject profile,
                      ProtoMessage(factorization, "rankProfile", {"layers"}));
  const Json* layers = profile.Find("layers");
  if (layers == nullptr || !layers->is_array() || layers->empty()) {
    return profile.Wrong("layers", "a list with one entry a layer");
  }
  for (const Json& entry : *layers) {
    const auto index = int64_t(spec.rank_profile.size());
    LF_ASSIGN_OR_RETURN(
        const JsonObject layer,
        JsonObject::Create(entry, absl::StrCat(profile.what(), ": layers[", index, "]")));
    LF_ASSIGN_OR_RETURN(const LayerRanks ranks, ParseLayerRanks(layer, index));
    spec.rank_profile.push_back(ranks);
  }
  return absl::OkStatus();
}

absl::Status RejectProfile(const JsonObject& factorization) {
  if (!factorization.Has("rankProfile")) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const JsonObject profile, factorization.Object("rankProfile"));
  const Json* layers = profile.Find("layers");
  if (layers == nullptr || layers->empty()) return absl::OkStatus();
  return factorization.Wrong("allocation", "RANK_ALLOCATION_PROFILE where a rank profile is given");
}

absl::Status ParseNumbers(const JsonObject& object, FactorizationSpec& spec) {
  LF_ASSIGN_OR_RETURN(spec.preconditioner.damping, ProtoDouble(object, "damping", kDefaultDamping));
  if (spec.preconditioner.damping < 0) return object.Wrong("damping", "a number of at least 0");
  spec.loss_metric.ridge = spec.preconditioner.damping;
  LF_ASSIGN_OR_RETURN(spec.preconditioner.alpha, ProtoDouble(object, "alpha", kDefaultAlpha));
  if (spec.preconditioner.alpha < 0) return object.Wrong("alpha", "a number of at least 0");
  LF_ASSIGN_OR_RETURN(spec.loss_metric.sink_weight,
                      ProtoDouble(object, "sinkWeight", kDefaultSinkWeight));
  if (spec.loss_metric.sink_weight < 0 || spec.loss_metric.sink_weight > 1) {
    return object.Wrong("sinkWeight", "a number from 0 to 1");
  }
  LF_ASSIGN_OR_RETURN(spec.rank_multiple, ProtoInt(object, "rankMultiple", 0, INT32_MAX, 0));
  if (spec.rank_multiple == 0) spec.rank_multiple = 1;
  return absl::OkStatus();
}

// What needs the Fisher information, or two latents.
absl::Status CheckTogether(const JsonObject& object, const FactorizationSpec& spec) {
  if (!spec.loss_aware) {
    if (spec.joint) return object.Wrong("latent", "LATENT_LAYOUT_SEPARATE without Fisher");
    if (spec.allocation == RankAllocation::kGlobal) {
      return object.Wrong("allocation", "another allocation without PRECONDITIONER_FISHER");
    }
    // Jobs of older servers have the default filled in.
    if (spec.loss_metric.sink_weight != kDefaultSinkWeight) {
      return object.Wrong("sinkWeight", "none without PRECONDITIONER_FISHER");
    }
    if (spec.anchored) return object.Wrong("anchored", "false without PRECONDITIONER_FISHER");
  }
  const bool care = IsCare(spec.allocation);
  if (care && spec.joint) {
    return object.Wrong("allocation", "RANK_ALLOCATION_GLOBAL or _UNIFORM with a joint latent");
  }
  if (spec.rank_multiple > 1 && (care || !spec.allocation)) {
    return object.Wrong("rankMultiple", "1 with CARE's allocations and with a rank profile");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FactorizationSpec> ParseFactorizationSpec(const JsonObject& job) {
  LF_ASSIGN_OR_RETURN(
      const JsonObject object,
      ProtoMessage(job, "factorization",
                   {"preconditioner", "damping", "alpha", "allocation", "rankProfile", "latent",
                    "sinkWeight", "rankMultiple", "anchored"}));
  FactorizationSpec spec;
  LF_ASSIGN_OR_RETURN(const std::optional<Preconditioner> preconditioner,
                      ProtoEnum(object, "preconditioner", kPreconditionerNames));
  spec.loss_aware = !preconditioner.has_value();
  if (preconditioner) spec.preconditioner.kind = *preconditioner;
  LF_RETURN_IF_ERROR(ParseNumbers(object, spec));
  LF_ASSIGN_OR_RETURN(const Allocation allocation, ProtoEnum(object, "allocation", kAllocations));
  spec.allocation = Resolve(allocation, spec.loss_aware);
  LF_RETURN_IF_ERROR(spec.allocation ? RejectProfile(object) : ParseProfile(object, spec));
  LF_ASSIGN_OR_RETURN(const Layout layout, ProtoEnum(object, "latent", kLayouts));
  const bool care = IsCare(spec.allocation);
  spec.joint = spec.loss_aware && !care;
  if (!spec.rank_profile.empty()) spec.joint = spec.rank_profile[0].joint > 0;
  if (layout != Layout::kUnspecified) spec.joint = layout == Layout::kJoint;
  LF_ASSIGN_OR_RETURN(spec.anchored, object.BoolOr("anchored", false));
  LF_RETURN_IF_ERROR(CheckTogether(object, spec));
  return spec;
}

Json LayerRanksToJson(int64_t layer, const LayerRanks& ranks) {
  if (ranks.joint > 0) return {{"layer", layer}, {"rankKv", ranks.joint}};
  return {{"layer", layer}, {"rankK", ranks.key}, {"rankV", ranks.value}};
}

Json FactorizationSpecToJson(const FactorizationSpec& spec) {
  std::optional<Preconditioner> preconditioner;
  if (!spec.loss_aware) preconditioner = spec.preconditioner.kind;
  Json json = {{"preconditioner", ProtoEnumName(kPreconditionerNames, preconditioner)},
               {"damping", spec.preconditioner.damping},
               {"alpha", spec.preconditioner.alpha},
               {"allocation", ProtoEnumName(kAllocations, NameableAllocation(spec.allocation))},
               {"latent", ProtoEnumName(kLayouts, spec.joint ? Layout::kJoint : Layout::kSeparate)},
               {"rankMultiple", spec.rank_multiple}};
  if (spec.loss_aware) {
    json["sinkWeight"] = spec.loss_metric.sink_weight;
    json["anchored"] = spec.anchored;
  }
  if (!spec.rank_profile.empty()) {
    Json layers = Json::array();
    for (const LayerRanks& ranks : spec.rank_profile) {
      layers.push_back(LayerRanksToJson(int64_t(layers.size()), ranks));
    }
    json["rankProfile"] = {{"layers", std::move(layers)}};
  }
  return json;
}

}  // namespace latentforge::convert
