#include <sys/mount.h>

#include "session.h"

namespace obfs {

Status unmount_prefix(const std::string& prefix, UnmountMode mode) {
  int flags = UMOUNT_NOFOLLOW;
  if (mode == UnmountMode::kDetach) flags |= MNT_DETACH;
  // MNT_FORCE aborts the connection: whoever waits on it gets an error, and the mount may then be detached.
  if (mode == UnmountMode::kAbort) {
    (void)umount2(prefix.c_str(), UMOUNT_NOFOLLOW | MNT_FORCE);
    flags |= MNT_DETACH;
  }
  const Status done = status_of(umount2(prefix.c_str(), flags));
  // The forced call may have taken it away already.
  return mode == UnmountMode::kAbort && done.error() == EINVAL ? Status() : done;
}

}  // namespace obfs
