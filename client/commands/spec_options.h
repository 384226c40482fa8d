// Binds the flags that describe a conversion.
#pragma once

#include "CLI/App.hpp"
#include "client/spec_flags.h"

namespace latentforge::client {

// Adds every flag of SpecFlags but those of scheduling; `flags` outlives the app.
void AddSpecOptions(CLI::App* app, SpecFlags* flags);

// Parts of them: multiples of ranks, damping and alpha; texts and samples of calibration; text and
// windows of evaluation; what computes and in which formats.
void AddFactorOptions(CLI::App* app, SpecFlags* flags);
void AddCalibrationOptions(CLI::App* app, SpecFlags* flags);
void AddEvaluationOptions(CLI::App* app, SpecFlags* flags);
void AddComputationOptions(CLI::App* app, SpecFlags* flags);

// Adds those about its place among others on a server.
void AddSchedulingOptions(CLI::App* app, SpecFlags* flags);

}  // namespace latentforge::client
