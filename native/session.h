#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "redirect_fs.h"

namespace obfs {

struct FuseService;

/** A failure for people: which call on which path, and its errno. */
struct MountFailure {
  std::string syscall;
  std::string path;
  int error;
};

/**
 * One mounted prefix, served by libfuse's threads. `start` mounts; the threads of the loop end when the mount is gone, by
 * whomever: nothing but the kernel ends a session (umount(2) from here), for libfuse's own exit and unmount calls race with it.
 * The process that holds a session must never touch the prefix itself.
 */
class Session {
 public:
  struct Options {
    std::string prefix;
    std::string covered;  ///< directory for callers without an entry; "" for the one that the mount covers
    RedirectFs::Options fs;
    std::vector<std::string> mount_options;
    std::string source;  ///< what the mount table shows as the device
  };

  /** Mounts. Returns null and sets `failure` when that cannot be done; nothing is then left mounted. */
  static std::unique_ptr<Session> start(const Options& options, MountFailure& failure);

  /** Begins to serve, on threads of its own. `ended` is called once, from one of them, when the mount is gone. */
  void serve(std::function<void()> ended);

  /** What was counted for a tree, under the scoreboard entry that leads to it ("" for the covered directory). */
  struct Counted {
    std::string entry;
    uint64_t generations, operations, errors;
    int64_t open_files, known_nodes;
  };
  std::vector<Counted> statistics();

  /** Waits until serving has ended, which an unmount brings about. */
  ~Session();

 private:
  explicit Session(const RedirectFs::Options& options, std::shared_ptr<TreeDirectory> covered);
  bool mount(const Options& options, MountFailure& failure);
  void loop(const std::function<void()>& ended);

  std::mutex fs_mutex_;  ///< for taking fs_ away; the loop's threads use it without
  std::unique_ptr<RedirectFs> fs_;
  const std::unique_ptr<FuseService> service_;
  std::thread thread_;
};

/** How to take a mount away: as long as nobody uses it, at once for new callers, or for everyone. */
enum class UnmountMode { kIfIdle, kDetach, kAbort };

/** umount(2) on the prefix itself, never on what a link there leads to. */
Status unmount_prefix(const std::string& prefix, UnmountMode mode);

}  // namespace obfs
