# cmake -DOUTPUT=x.cc -DFILES=a;b -P embed.cmake: writes the files as byte arrays behind ModelCode().
set(arrays "")
set(entries "")
set(index 0)
foreach(file IN LISTS FILES)
  file(READ "${file}" bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
  get_filename_component(name "${file}" NAME)
  string(APPEND arrays "constexpr char kFile${index}[] = {${bytes}};\n")
  string(APPEND entries "      {\"${name}\", absl::string_view(kFile${index}, sizeof(kFile${index}))},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE "${OUTPUT}"
"#include \"worker/export/embedded_files.h\"

namespace latentforge::exporter {
namespace {
${arrays}
}  // namespace

std::vector<EmbeddedFile> ModelCode() {
  return {
${entries}  };
}

}  // namespace latentforge::exporter
")
