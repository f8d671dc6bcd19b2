#include "capabilities.h"

namespace obfs {

Status keep_capabilities(uint64_t) { return Status(); }

}  // namespace obfs
