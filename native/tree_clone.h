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

struct CloneControl {
  explicit CloneControl(bool is_copied) : is_copy(is_copied) {}

  /** Whether the files are copied instead of shared, which works between and on all file systems of Linux. */
  const bool is_copy;
  /** For other threads: once set, the clone ends soon with ECANCELED. */
  std::atomic<bool> is_cancelled = false;
};

/**
 * Fills the existing empty directory `target` with what is in `source`, and gives it `source`'s attributes. The files share their storage
 * with the originals until one is written to (reflink, clonefile) unless they are to be copied, and keep mode, owner, times, hard links, extended
 * attributes, access control lists and holes; without root's rights, owners are the caller's. Works in several threads and returns when all
 * have ended.
 *
 * Nobody may change either tree meanwhile. Still, nothing is reached through a link: each file is named relative to a descriptor of its directory.
 * On failure `target` holds what was cloned by then: EXDEV is a file of another file system, EOPNOTSUPP a file system that cannot share,
 * ENOTSUP a system that cannot copy.
 */
std::optional<CloneFailure> clone_tree(const std::string& source, const std::string& target, CloneControl& control);

}  // namespace obfs
