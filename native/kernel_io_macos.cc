#include "kernel_io.h"

namespace obfs {

// macFUSE has no such features.
Status KernelIo::attach(fuse_session*) { return Status(); }

bool KernelIo::request_clears_set_ids() { return false; }

}  // namespace obfs
