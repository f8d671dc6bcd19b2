#include "shared_extents.h"

namespace obfs {

// APFS tells of private bytes per file only by a call that is not documented for trees of any size.
uint64_t shared_bytes_of(int, const char*) { return 0; }

}  // namespace obfs
