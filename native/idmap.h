#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "result.h"
#include "unique_fd.h"

namespace obfs {

/** Files of the stored ids are shown as the shown ids' own, and what those make is stored as the stored ids'. */
struct OwnerMapping {
  uid_t stored_uid;
  gid_t stored_gid;
  uid_t shown_uid;
  gid_t shown_gid;
};

/** A directory that is to be seen through a mapping. */
struct MappedTree {
  std::string path;
  OwnerMapping owners;
};

/**
 * A mount namespace like the caller's, but for an idmapped mount over each of the trees; nothing outside of it changes, and it goes
 * with its last descriptor or process. EINVAL, EPERM, ENOSYS, ENOSPC where the kernel, the file system or the machine's settings do
 * not allow it.
 */
Result<UniqueFd> open_mapped_namespace(const std::vector<MappedTree>& trees);

}  // namespace obfs
