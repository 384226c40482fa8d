// What flags accept, checked before they are converted, so that every refusal says
// what was seen and what is expected.
#pragma once

#include <cstdint>
#include <string>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"

namespace latentforge::client {

// An integer from `least` to `most`.
CLI::Validator Integer(int64_t least, int64_t most);

// An integer from 0 to 2^64 - 1. The library would turn -1 into 2^64 - 1.
CLI::Validator Unsigned();

// A number from `least` to `most`.
CLI::Validator Number(double least, double most);

// A finite number above 1, or of at least 1, such as `example`.
CLI::Validator AboveOne(const std::string& example);
CLI::Validator AtLeastOne(const std::string& example);

// A number in (0, 1], such as `example`.
CLI::Validator Share(const std::string& example);

// Makes every flag and argument of `app` and its commands refuse an empty text, but
// for those whose empty text is their default.
void RefuseEmptyTexts(CLI::App* app);

}  // namespace latentforge::client
