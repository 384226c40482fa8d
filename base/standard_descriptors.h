// The descriptors that every program counts on.
#pragma once

namespace latentforge {

// Keeps 0, 1 and 2 taken where a caller closed them, so that no file or socket of the program
// lands there and gets what is printed. They stay of no use: reading or writing fails as before.
// First thing in main.
void HoldStandardDescriptors();

}  // namespace latentforge
