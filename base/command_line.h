// What the programs say of a command line that they do not understand.
#pragma once

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"

namespace latentforge {

// "latentforge job" of the command `job`.
std::string CommandPath(const CLI::App& command);

// Of the commands that `command` has.
std::vector<std::string> CommandNames(const CLI::App& command);

// The innermost command that was recognised: `app` itself where it was given none.
const CLI::App& InnermostCommand(const CLI::App& app);

// After a parse of `app` that failed: the first argument that nothing took, with the nearest
// known flag or command, as in `"--slot" is no flag of latentforge-worker; did you mean
// --slots?`. Empty when every argument was taken.
std::string UnknownArgument(const CLI::App& app);

// After a parse of `app` that failed: the first flag that takes one value and was given more, as in
// `--slots is given twice, as "1" and "2", expected once`. Empty when there is none.
std::string RepeatedFlag(const CLI::App& app);

// Makes `app` print these instead of the library's own message when it reports an error.
void ExplainUnknownArguments(CLI::App* app);

}  // namespace latentforge
