#include "base/standard_descriptors.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <initializer_list>

#include "gtest/gtest.h"

namespace latentforge {
namespace {

// 0 when a file is not opened on 0 to 2 and nothing can be read or written there.
int CloseAndLook() {
  for (const int fd : {0, 1, 2}) close(fd);
  HoldStandardDescriptors();
  const int file = open("/dev/zero", O_RDWR);
  std::array<char, 1> byte = {};
  const bool useless = read(0, byte.data(), 1) < 0 && write(1, byte.data(), 1) < 0 &&
                       write(2, byte.data(), 1) < 0 && errno == EBADF;
  return file > 2 && useless ? 0 : 1;
}

TEST(StandardDescriptorsTest, AreNeverAFileOfTheProgram) {
  EXPECT_EXIT(_exit(CloseAndLook()), testing::ExitedWithCode(0), "");
}

TEST(StandardDescriptorsTest, StayWhereTheyAreOpen) {
  HoldStandardDescriptors();
  EXPECT_EQ(write(STDERR_FILENO, "", 0), 0);
}

}  // namespace
}  // namespace latentforge
