#include "client/commands/spec_options.h"

#include "absl/strings/str_cat.h"
#include "base/conversion_defaults.h"
#include "base/conversion_limits.h"
#include "client/commands/flag_checks.h"
#include "client/field_text.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {
namespace {

void AddFactorizationOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Factorisation";
  // The API names more than this version does.
  app->add_option("--method", flags->method,
                  "How to convert: kv-latent, keys and values through latents; low-rank, every "
                  "linear map of the decoder (default: kv-latent)")
      ->group(group);
  app->add_option("--preconditioner", flags->preconditioner,
                  absl::StrCat("What errors count by: ",
                               EnumChoices(*v1::Preconditioner_descriptor()), " (default: fisher)"))
      ->group(group);
  app->add_option("--allocation", flags->allocation,
                  absl::StrCat("How layers share the budget: ",
                               EnumChoices(*v1::RankAllocation_descriptor()),
                               " (default: global, which needs fisher; else uniform)"))
      ->group(group);
  app->add_option(
         "--latent", flags->latent,
         absl::StrCat("One latent for keys and values or one each: ",
                      EnumChoices(*v1::LatentLayout_descriptor()),
                      " (default: joint, which needs fisher and no allocation of care; else "
                      "separate)"))
      ->group(group);
  app->add_option("--sink-weight", flags->sink_weight,
                  absl::StrCat("Share of the first position in the covariance of fisher; refused "
                               "without it (default: ",
                               kDefaultSinkWeight, ")"))
      ->check(Number(0, 1))
      ->group(group);
  app->add_flag("--anchored", flags->anchored,
                "Factorise layer by layer against what the converted layers before really feed "
                "each; refused without fisher and beside --max-perplexity-ratio (default: no)")
      ->group(group);
  app->add_option("--rank-profile", flags->rank_profile,
                  "Ranks to use: a report.json, or {\"layers\": [{\"rank_k\": 64, \"rank_v\": 64}, "
                  "...]} (joint: rank_kv); implies --allocation profile (default: none)")
      ->group(group);
  AddFactorOptions(app, flags);
}

void AddLowRankOptions(CLI::App* app, LowRankFlags* flags) {
  const std::string group = "Method low-rank";
  app->add_option("--ratio", flags->ratio,
                  "Share of the parameters of the decoder's linear maps that goes, in (0, 1) "
                  "(required with --method low-rank)")
      ->check(Share("0.3"))
      ->group(group)
      ->type_name("SHARE");
  app->add_option(
         "--factor-layout", flags->factor_layout,
         absl::StrCat("How factors are stored: ", EnumChoices(*v1::FactorLayout_descriptor()),
                      " (default: block-identity)"))
      ->group(group);
  app->add_option("--query-key", flags->query_key,
                  absl::StrCat("Whether queries and keys are compressed for their product: ",
                               EnumChoices(*v1::JointMode_descriptor()),
                               " (default: joint with root-covariance, else local)"))
      ->group(group);
  app->add_option("--value-output", flags->value_output,
                  absl::StrCat("The same of values and attention's output: ",
                               EnumChoices(*v1::JointMode_descriptor()),
                               " (default: joint with root-covariance, else local)"))
      ->group(group);
  app->add_option("--mlp", flags->mlp,
                  absl::StrCat("How an MLP is compressed: ",
                               EnumChoices(*v1::MlpCompression_descriptor()), " (default: local)"))
      ->group(group);
  app->add_option(
         "--activations", flags->activations,
         absl::StrCat("Activations of the original model, or those that the compressed "
                      "layers before give: ",
                      EnumChoices(*v1::ActivationSource_descriptor()), " (default: original)"))
      ->group(group);
  app->add_flag("--bias-update", flags->bias_update,
                "Factorise for centred activations and correct the mean error by a bias, which "
                "maps without one get (default: no)")
      ->group(group);
  app->add_flag("--literal-hessian", flags->literal_hessian,
                "diagonal-hessian with the exponent as LatentLLM prints it, for comparison "
                "(default: no)")
      ->group(group);
}

void AddQualityGate(CLI::App* app, SpecFlags* flags) {
  app->add_option("--quality-gate", flags->quality_gate,
                  "Fail when the perplexity is more than this many times the original's "
                  "(default: none)")
      ->check(AtLeastOne("1.02"))
      ->group("Evaluation")
      ->type_name("RATIO");
}

void AddHealingOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Healing";
  app->add_flag("--heal", flags->heal,
                absl::StrCat("Distil the original into the result for a while: ",
                             kDefaultHealingTokens, " tokens (default: no)"))
      ->group(group);
  app->add_option("--heal-tokens", flags->heal_tokens,
                  "Heal with this many tokens, rounded up to whole sequences (default: none)")
      ->check(Integer(1, kMaxHealingTokens))
      ->group(group);
  app->add_option("--heal-learning-rate", flags->heal_learning_rate,
                  "Heal, with this largest relative step of a weight (default: by how far the "
                  "factorised model is from the original)")
      ->check(Share("0.002"))
      ->group(group);
  app->add_option(
         "--heal-weights", flags->heal_weights,
         absl::StrCat("Heal, and train these: ", EnumChoices(*v1::HealedWeights_descriptor()),
                      " (default: attention)"))
      ->group(group)
      ->type_name("WEIGHTS");
  app->add_option("--heal-optimizer", flags->heal_optimizer,
                  absl::StrCat("Heal, with steps of: ",
                               EnumChoices(*v1::HealingOptimizer_descriptor()), " (default: muon)"))
      ->group(group)
      ->type_name("OPTIMIZER");
  app->add_option(
         "--heal-text", flags->heal_text,
         "Heal with this text, FILE or FILE:WEIGHT; repeatable (default: the calibration's)")
      ->group(group)
      ->type_name("FILE[:WEIGHT]")
      ->allow_extra_args(false);
}

}  // namespace

void AddFactorOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Factorisation";
  app->add_option("--rank-multiple", flags->rank_multiple,
                  "Ranks are multiples of this, or the full width (default: 1)")
      ->check(Integer(1, kMaxRankMultiple))
      ->group(group);
  app->add_option("--damping", flags->damping,
                  absl::StrCat("Multiples of the mean diagonal added to the diagonal of the "
                               "covariance, or of the Fisher matrix (default: ",
                               kDefaultDamping, ")"))
      ->check(Number(0, kMaxDamping))
      ->group(group);
  app->add_option("--alpha", flags->alpha,
                  absl::StrCat("Exponent of diagonal-l1 (default: ", kDefaultAlpha, ")"))
      ->check(Number(0, kMaxAlpha))
      ->group(group);
}

void AddCalibrationOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Calibration";
  app->add_option(
         "--calibration", flags->calibration,
         "Text to calibrate on, FILE or FILE:WEIGHT; repeatable. Plain text, or JSON lines "
         "with --calibration-text-field (required)")
      ->group(group)
      ->type_name("FILE[:WEIGHT]")
      ->allow_extra_args(false);
  app->add_option("--calibration-text-field", flags->calibration_text_field,
                  "Field that holds the text, in files named *.jsonl, *.ndjson or *.json (default: "
                  "none)")
      ->group(group);
  app->add_option("--calibration-sequences", flags->calibration_sequences,
                  absl::StrCat("Number of sequences (default: ", kDefaultCalibrationSequences, ")"))
      ->check(Integer(1, kMaxSequences))
      ->group(group);
  app->add_option("--sequence-length", flags->sequence_length,
                  absl::StrCat("Tokens in each (default: ", kDefaultSequenceLength, ")"))
      ->check(Integer(2, kMaxSequenceLength))
      ->group(group);
  app->add_option("--fisher-labels", flags->fisher_labels,
                  absl::StrCat("Labels of the Fisher information: ",
                               EnumChoices(*v1::FisherLabels_descriptor()), " (default: sampled)"))
      ->group(group);
  app->add_option("--seed", flags->seed, "Seed of the sampling (default: 0)")
      ->check(Unsigned())
      ->group(group);
}

void AddEvaluationOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Evaluation";
  app->add_option("--evaluate", flags->evaluate,
                  "Text to measure perplexity on (default: a part of the first calibration text, "
                  "held back)")
      ->group(group)
      ->type_name("FILE");
  app->add_option("--evaluate-text-field", flags->evaluate_text_field,
                  "Field that holds the text, for JSON lines (default: none)")
      ->group(group);
  app->add_option("--evaluate-windows", flags->evaluate_windows,
                  absl::StrCat("Number of windows (default: ", kDefaultEvaluationWindows, ")"))
      ->check(Integer(1, kMaxSequences))
      ->group(group);
  app->add_option("--window-length", flags->window_length,
                  absl::StrCat("Tokens in each (default: ", kDefaultWindowLength, ")"))
      ->check(Integer(2, kMaxSequenceLength))
      ->group(group);
}

void AddComputationOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Computation";
  app->add_option("--dtype", flags->dtype,
                  "Format of the computation: float32, bfloat16 (default: bfloat16)")
      ->group(group);
  app->add_option("--output-dtype", flags->output_dtype,
                  "Format of the stored weights: float32, bfloat16, float16 (default: the model's)")
      ->group(group);
  app->add_option("--device", flags->device, "auto, cpu, cuda or cuda:N (default: auto)")
      ->group(group);
  app->add_option("--threads", flags->threads, "Threads of the computation (default: all)")
      ->check(Integer(1, kMaxThreads))
      ->group(group);
  app->add_option("--deadline", flags->deadline,
                  "The job fails when it has not ended after this time, such as 90m or 12h "
                  "(default: none)")
      ->group(group)
      ->type_name("TIME");
}

void AddSpecOptions(CLI::App* app, SpecFlags* flags) {
  app->add_option("MODEL", flags->model, "Folder of the checkpoint to convert (required)");
  app->add_option("--kv-budget", flags->kv_budget,
                  "Share of the KV cache bytes to keep, in (0, 1] (this or "
                  "--max-perplexity-ratio is required with --method kv-latent)")
      ->check(Share("0.5"))
      ->type_name("SHARE");
  app->add_option("--max-perplexity-ratio", flags->max_perplexity_ratio,
                  "Keep as little of the cache as leaves the perplexity within this many times the "
                  "original's, such as 1.05 (default: none)")
      ->check(AboveOne("1.05"))
      ->type_name("RATIO");
  app->add_option("--out", flags->out, "Folder to write; absent or empty (required)")
      ->type_name("DIR");
  AddCalibrationOptions(app, flags);
  AddEvaluationOptions(app, flags);
  AddQualityGate(app, flags);
  AddFactorizationOptions(app, flags);
  AddLowRankOptions(app, &flags->low_rank);
  AddHealingOptions(app, flags);
  AddComputationOptions(app, flags);
  const std::string group = "Job";
  app->add_option(
         "-f,--file", flags->job_file,
         "Job file in YAML or JSON, - for standard input; flags win over it (default: none)")
      ->group(group)
      ->type_name("FILE");
  app->add_option(
         "--set", flags->settings,
         "Sets one field of the job, such as budget.kvBudget=0.5; repeatable, wins over all "
         "(default: none)")
      ->group(group)
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app->add_option("--label", flags->labels, "Labels the job; repeatable (default: none)")
      ->group(group)
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void AddSchedulingOptions(CLI::App* app, SpecFlags* flags) {
  const std::string group = "Scheduling";
  app->add_option("--priority", flags->priority,
                  absl::StrCat("Whose turn comes first: ", EnumChoices(*v1::Priority_descriptor()),
                               "; a class is worth one --priority-step of the server (default: "
                               "normal)"))
      ->group(group);
  app->add_option("--queue-deadline", flags->queue_deadline,
                  "The job fails when no worker has taken it after this time, such as 30m "
                  "(default: none)")
      ->group(group)
      ->type_name("TIME");
  app->add_option("--run-deadline", flags->run_deadline,
                  "The job fails when one attempt takes longer than this (default: none)")
      ->group(group)
      ->type_name("TIME");
  app->add_option("--ttl", flags->ttl,
                  "The job is deleted this long after its end, such as 168h; its artifact stays "
                  "(default: as the server does)")
      ->group(group)
      ->type_name("TIME");
  app->add_option("--worker-label", flags->worker_labels,
                  "Label that a worker must have to take the job; repeatable (default: any worker "
                  "that has the device and the memory)")
      ->group(group)
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace latentforge::client
