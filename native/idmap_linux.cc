// Idmapped mounts, Linux 5.12: see mount_setattr(2). Called by number: the C library that we build with may be older.

#include "idmap.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <thread>

namespace obfs {

namespace {

constexpr long kOpenTree = 428;
constexpr long kMoveMount = 429;
constexpr long kMountSetattr = 442;
constexpr unsigned kOpenTreeClone = 1;
constexpr unsigned kMoveMountFromDescriptor = 4;
constexpr uint64_t kMountIdmap = 0x00100000;

struct MountAttributes {
  uint64_t set;
  uint64_t clear;
  uint64_t propagation;
  uint64_t user_namespace;
};

/** Ids from 0 up to and without it are all that there are. */
constexpr int64_t kIdsEnd = 4294967295;

/** As /proc/PID/uid_map takes it: the two ids swapped, so that no id is lost, every other one itself. */
std::string id_map(int64_t stored, int64_t shown) {
  std::string map;
  const auto add = [&map](int64_t inside, int64_t outside, int64_t count) {
    if (count <= 0) return;
    map += std::to_string(inside) + " " + std::to_string(outside) + " " + std::to_string(count) + "\n";
  };
  const auto [low, high] = std::minmax(stored, shown);
  add(0, 0, low);
  add(low, high, 1);
  add(low + 1, low + 1, high - low - 1);
  if (high != low) add(high, low, 1);
  add(high + 1, high + 1, kIdsEnd - high - 1);
  return map;
}

Status write_whole(const std::string& path, const std::string& text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.is_open()) return last_errno();
  const ssize_t written = write(file.get(), text.data(), text.size());
  if (written < 0) return last_errno();
  return written == static_cast<ssize_t>(text.size()) ? Status() : Status(Errno{EIO});
}

/** Sets the mapping of a new user namespace, as which only a process can stand, and answers a descriptor of it. */
Result<UniqueFd> map_namespace_of(pid_t process, const OwnerMapping& owners) {
  const std::string proc = "/proc/" + std::to_string(process);
  const Status uids = write_whole(proc + "/uid_map", id_map(owners.stored_uid, owners.shown_uid));
  if (!uids.ok()) return uids.failure();
  const Status gids = write_whole(proc + "/gid_map", id_map(owners.stored_gid, owners.shown_gid));
  if (!gids.ok()) return gids.failure();
  UniqueFd user_namespace(open((proc + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  if (!user_namespace.is_open()) return last_errno();
  return user_namespace;
}

/** Signals stay blocked: a handler would run in the child too, on what it shares with this process. */
pid_t fork_in_user_namespace() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto child = static_cast<pid_t>(syscall(SYS_clone, CLONE_NEWUSER, 0, 0, 0, 0));
  if (child != 0) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return child;
}

/** A user namespace without anybody in it. */
Result<UniqueFd> make_user_namespace(const OwnerMapping& owners) {
  const pid_t parent = getpid();
  const pid_t child = fork_in_user_namespace();
  if (child < 0) return last_errno();
  if (child == 0) {
    // Does nothing until it is killed: not with a pipe, whose end another thread's child might inherit and hold.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent) pause();
    _exit(0);
  }
  auto made = map_namespace_of(child, owners);
  kill(child, SIGKILL);
  while (waitpid(child, nullptr, __WALL) < 0 && errno == EINTR) continue;
  return made;
}

Status cover_with_mapped(const MappedTree& tree) {
  const auto user_namespace = make_user_namespace(tree.owners);
  if (!user_namespace.ok()) return user_namespace.failure();
  const UniqueFd mount(static_cast<int>(
      syscall(kOpenTree, AT_FDCWD, tree.path.c_str(), kOpenTreeClone | O_CLOEXEC | AT_SYMLINK_NOFOLLOW)));
  if (!mount.is_open()) return last_errno();
  MountAttributes attributes = {kMountIdmap, 0, 0, static_cast<uint64_t>((*user_namespace).get())};
  if (syscall(kMountSetattr, mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) return last_errno();
  return status_of(
      static_cast<int>(syscall(kMoveMount, mount.get(), "", AT_FDCWD, tree.path.c_str(), kMoveMountFromDescriptor)));
}

Result<UniqueFd> in_this_thread(const std::vector<MappedTree>& trees) {
  if (unshare(CLONE_NEWNS) != 0) return last_errno();
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return last_errno();
  for (const MappedTree& tree : trees) {
    const Status covered = cover_with_mapped(tree);
    if (!covered.ok()) return covered.failure();
  }
  UniqueFd made(open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC));
  if (!made.is_open()) return last_errno();
  return made;
}

}  // namespace

// A namespace is a thread's own: this one lives no longer than it takes to make it.
Result<UniqueFd> open_mapped_namespace(const std::vector<MappedTree>& trees) {
  Result<UniqueFd> made = Errno{EIO};
  std::thread([&] { made = in_this_thread(trees); }).join();
  return made;
}

}  // namespace obfs
