// Binds the flags that describe a conversion.
#pragma once

#include "CLI/App.hpp"
#include "client/spec_flags.h"

namespace latentforge::client {

// Adds every flag of SpecFlags; `flags` outlives the app.
void AddSpecOptions(CLI::App* app, SpecFlags* flags);

}  // namespace latentforge::client
