#include "caller_identity.h"

#include <grp.h>
#include <unistd.h>

#ifdef __APPLE__
#include <pthread.h>
#include <sys/kauth.h>
#else
#include <fcntl.h>
#include <sys/syscall.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "unique_fd.h"
#endif

namespace obfs {

#ifdef __APPLE__

// settid(2) refuses to assume a second identity: the destructor always reverts before the next one.
ScopedIdentity::ScopedIdentity(uid_t uid, gid_t gid, const std::vector<gid_t>&) {
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
  is_assumed_ = pthread_setugid_np(uid, gid) == 0;
#pragma clang diagnostic pop
}

ScopedIdentity::~ScopedIdentity() {
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
  if (is_assumed_) pthread_setugid_np(KAUTH_UID_NONE, KAUTH_GID_NONE);
#pragma clang diagnostic pop
}

std::optional<std::vector<gid_t>> supplementary_groups(pid_t) { return std::vector<gid_t>(); }

#else

namespace {

// The raw calls change one thread; glibc's would change them all.
bool set_thread_groups(size_t count, const gid_t* groups) { return syscall(SYS_setgroups, count, groups) == 0; }
bool set_thread_gid(gid_t gid) { return syscall(SYS_setresgid, -1, gid, -1) == 0; }
bool set_thread_uid(uid_t uid) { return syscall(SYS_setresuid, -1, uid, -1) == 0; }

}  // namespace

// The uid last, which takes the right to change the others away.
ScopedIdentity::ScopedIdentity(uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
  if (!groups.empty()) {
    if (!set_thread_groups(groups.size(), groups.data())) return;
    has_groups_ = true;
  }
  if (gid != 0) {
    if (!set_thread_gid(gid)) return;
    has_gid_ = true;
  }
  if (uid != 0) {
    if (!set_thread_uid(uid)) return;
    has_uid_ = true;
  }
  is_assumed_ = true;
}

// A thread whose own identity cannot be restored must not answer another request.
ScopedIdentity::~ScopedIdentity() {
  const bool is_restored = (!has_uid_ || set_thread_uid(0)) && (!has_gid_ || set_thread_gid(0)) &&
                           (!has_groups_ || set_thread_groups(0, nullptr));
  if (!is_restored) abort();
}

std::optional<std::vector<gid_t>> supplementary_groups(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/status";
  const UniqueFd status(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!status.is_open()) return std::nullopt;
  std::string text;
  char chunk[4096];
  for (ssize_t got; (got = read(status.get(), chunk, sizeof chunk)) > 0;) text.append(chunk, got);
  const size_t at = text.find("\nGroups:");
  if (at == std::string::npos) return std::nullopt;
  std::vector<gid_t> groups;
  const char* cursor = text.c_str() + at + strlen("\nGroups:");
  const char* const line_end = strchr(cursor, '\n');
  while (cursor < line_end) {
    char* after = nullptr;
    const unsigned long gid = strtoul(cursor, &after, 10);
    if (after == cursor || after > line_end) break;
    groups.push_back(static_cast<gid_t>(gid));
    cursor = after;
    while (*cursor == ' ' || *cursor == '\t') ++cursor;
  }
  return groups;
}

#endif

void drop_own_groups() {
  if (geteuid() == 0) (void)!setgroups(0, nullptr);
}

}  // namespace obfs
