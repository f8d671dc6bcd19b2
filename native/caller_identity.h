#pragma once

#include <sys/types.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "result.h"

namespace obfs {

/** Who made a request: the file-system uid and gid of the calling thread, and its thread id. */
struct Caller {
  uid_t uid;
  gid_t gid;
  pid_t pid;
};

/** Whom an operation on the backing file system runs as. `pid` is where supplementary groups are read from. */
struct Identity {
  uid_t uid;
  gid_t gid;
  pid_t pid;
};

/**
 * Gives the calling thread, and no other, an identity for file-system checks until the end of the scope. Never nested.
 * Linux: the effective ids, which the file-system ids follow. Real and saved ids stay the daemon's, or a build user could signal it.
 * macOS: the thread's assumed identity (pthread_setugid_np), which has no supplementary groups.
 * While a foreign identity is assumed the thread lacks the capabilities to open by handle: get descriptors first.
 */
class ScopedIdentity {
 public:
  ScopedIdentity(uid_t uid, gid_t gid, const std::vector<gid_t>& groups = {});
  ~ScopedIdentity();
  ScopedIdentity(const ScopedIdentity&) = delete;
  ScopedIdentity& operator=(const ScopedIdentity&) = delete;

  /** Whether the kernel granted it; when not, nothing may be done in its name. */
  bool is_assumed() const { return is_assumed_; }

 private:
  bool is_assumed_ = false;
  // Linux only, what is to be given back:
  [[maybe_unused]] bool has_groups_ = false;
  [[maybe_unused]] bool has_gid_ = false;
  [[maybe_unused]] bool has_uid_ = false;
};

/** The supplementary groups of a thread; none when it is gone. macOS: always empty, as an assumed identity has none there. */
std::optional<std::vector<gid_t>> supplementary_groups(pid_t pid);

/** Drops the supplementary groups that this process was started with. Call before threads are made. */
void drop_own_groups();

inline bool is_refusal(int error) { return error == EACCES || error == EPERM; }

/**
 * Runs `operation` as `identity`. Supplementary groups cost a read of /proc, so they are added in a second try only when the
 * first was refused. `groups_first` asks for them at once: where a group is granted less than others are, a first try
 * without groups would be granted too much. Who is killed in mid-request has no groups to be read any more, and is refused.
 */
template <typename Operation>
auto run_as(const Identity& identity, bool groups_first, Operation operation) -> decltype(operation()) {
  Errno refusal{EACCES};
  if (!groups_first || identity.uid == 0) {
    ScopedIdentity scope(identity.uid, identity.gid);
    if (!scope.is_assumed()) return Errno{EPERM};
    auto result = operation();
    if (result.ok() || !is_refusal(result.error()) || identity.uid == 0) return result;
    refusal = result.failure();
  }
  const auto groups = supplementary_groups(identity.pid);
  if (!groups) return refusal;
  ScopedIdentity scope(identity.uid, identity.gid, *groups);
  if (!scope.is_assumed()) return Errno{EPERM};
  return operation();
}

}  // namespace obfs
