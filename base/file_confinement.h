// Holds this process to parts of the file system.
#pragma once

#include <filesystem>
#include <vector>

#include "absl/status/status.h"

namespace latentforge {

// Folders, each with all beneath it, and single files.
struct FileRoots {
  std::vector<std::filesystem::path> read;
  std::vector<std::filesystem::path> write;  // and read
};

// From now on this thread, and every thread and process that it starts, opens, makes, renames and
// removes files beneath these roots only. The kernel (Landlock) looks at where a file lies when it
// is opened: no `..` and no symbolic link, whenever it was made, leads out. What is open stays so.
// Cannot be undone; a second call narrows the first. Call it before other threads start. A root
// that does not exist allows nothing. Unimplemented where the kernel has no Landlock; the errors of
// ErrnoStatus otherwise, and then nothing has changed.
absl::Status ConfineFiles(const FileRoots& roots);

// What a program needs besides its data: the system's libraries and programs, what the kernel says
// of itself, devices, and the folders of its own executable and libraries. Nothing of it is secret.
FileRoots ProgramRoots();

}  // namespace latentforge
