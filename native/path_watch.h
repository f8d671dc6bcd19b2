#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "result.h"
#include "unique_fd.h"

namespace obfs {

/**
 * Notices when paths may have come to lead elsewhere, which costs one system call however many there are. On Linux; elsewhere no
 * path can be watched. What is mounted over a path is not noticed. All methods may be called from several threads at once.
 */
class PathWatch {
 public:
  PathWatch();
  PathWatch(const PathWatch&) = delete;
  PathWatch& operator=(const PathWatch&) = delete;

  /** A path being watched, for as long as this lives, which must be shorter than its PathWatch. */
  class Watched;

  /**
   * Watches each name on the way to a directory, and with `entries` those in it too, with their attributes. Fails where changes would
   * go unnoticed: a link on the way, a disk of another machine, no more watches to be had.
   */
  Result<std::shared_ptr<Watched>> watch(const std::string& path, bool entries);

  /** Another number than before once a watched path was changed, by any system call that has returned by now. */
  uint64_t epoch();

 private:
  /** A directory that is watched, by any number of paths. */
  struct Directory {
    std::multiset<std::string> names;  ///< whose changes count
    int all = 0;                       ///< how many want every name's
  };

  bool has_events() const;
  void drain();
  void note(int directory, uint32_t what, const std::string& name);
  Status add(Watched& watched, int directory, const std::string& name);
  void remove(int directory, const std::string& name);

  const UniqueFd events_;
  std::atomic<uint64_t> epoch_ = 1;
  std::atomic<bool> is_draining_ = false;  ///< an event may have been taken that epoch_ does not tell of yet
  std::mutex mutex_;
  std::map<int, Directory> directories_;  ///< guarded by mutex_; by watch descriptor
};

class PathWatch::Watched {
 public:
  explicit Watched(PathWatch& by) : by_(by) {}
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  friend class PathWatch;
  struct Name {
    int directory;
    std::string name;  ///< "": all of them
  };
  PathWatch& by_;
  std::vector<Name> names_;
};

}  // namespace obfs
