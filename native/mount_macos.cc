#include <sys/mount.h>
#include <sys/param.h>

#include "session.h"

namespace obfs {

// macOS has no lazy detach: force is the only stronger word.
Status unmount_prefix(const std::string& prefix, UnmountMode mode) {
  return status_of(unmount(prefix.c_str(), mode == UnmountMode::kIfIdle ? 0 : MNT_FORCE));
}

}  // namespace obfs
