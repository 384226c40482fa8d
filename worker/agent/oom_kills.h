// What the kernel says of processes that it killed for lack of memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace latentforge::agent {

// How many processes of this one's control group the kernel has killed because memory ran out,
// its machine's or the group's; those of the whole machine where the group keeps no count.
// nullopt where nothing does. `root` is "/" except in tests.
std::optional<int64_t> CountOomKills(const std::filesystem::path& root);

}  // namespace latentforge::agent
