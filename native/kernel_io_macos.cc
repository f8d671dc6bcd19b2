#include "kernel_io.h"

namespace obfs {

// macFUSE has no such features.
Status KernelIo::attach(fuse_session*, bool) { return Status(); }

bool KernelIo::request_clears_set_ids() { return false; }

int32_t KernelIo::open_backing(int) { return 0; }

void KernelIo::close_backing(int32_t) {}

void KernelIo::reply_with_backing(int32_t) {}

}  // namespace obfs
