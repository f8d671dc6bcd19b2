#pragma once

#include <cstdint>

namespace obfs {

/** How many bytes of the file `name` of `directory` lie in storage that other files share (reflinks); 0 where nothing tells. */
uint64_t shared_bytes_of(int directory, const char* name);

}  // namespace obfs
