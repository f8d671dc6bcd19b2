#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "result.h"
#include "unique_fd.h"

/** What walks of whole trees are made of. Directories are named by their paths below the tree's root ("" for that itself). */
namespace obfs::tree_walk {

/** Opens a directory for reading, through no link, however deep it lies. `flags` go with it. */
Result<UniqueFd> open_directory(int root, const std::string& path, int flags = 0);

std::string path_below(const std::string& directory, const char* name);

/** Calls `visit` with each entry but "." and "..", until one fails: that is then the answer. */
Status for_each_entry(int directory, const std::function<Status(const dirent&)>& visit);

/** What several threads take from and add to. No descriptor is held for what waits. */
class WorkList {
 public:
  void add(std::string directory);

  /** The newest directory, or none when all work is done or given up. Each one taken is to be marked done. */
  std::optional<std::string> take();
  void mark_done();

  /** Nothing is taken any more. */
  void give_up();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  // All under mutex_:
  std::vector<std::string> waiting_;
  size_t under_way_ = 0;
  bool is_given_up_ = false;
};

}  // namespace obfs::tree_walk
