#pragma once

#include <atomic>
#include <optional>
#include <string>

namespace obfs {

/** The call that ended a clone, and the file it was made on. */
struct CloneFailure {
  int error;
  std::string syscall;
  std::string path;
};

/** What other threads may tell a clone that is under way. */
struct CloneControl {
  /** Once set, the clone ends with ECANCELED before its next file. */
  std::atomic<bool> is_cancelled = false;
};

/**
 * Fills the existing empty directory `target` with what is in `source`, and gives it `source`'s attributes. The files share their storage
 * with the originals until one is written to (reflink, clonefile), and keep mode, owner, times, hard links, extended attributes, access control
 * lists and holes; without root's rights, owners are the caller's. Works in several threads and returns when all have ended.
 *
 * Nobody may change either tree meanwhile. Still, nothing is reached through a link: each file is named relative to a descriptor of its directory.
 * On failure `target` holds what was cloned by then: EXDEV is a file of another file system, EOPNOTSUPP a file system that cannot share.
 */
std::optional<CloneFailure> clone_tree(const std::string& source, const std::string& target, CloneControl& control);

}  // namespace obfs
