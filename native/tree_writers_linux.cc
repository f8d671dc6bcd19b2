#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "tree_walk.h"
#include "tree_writers.h"
#include "unique_fd.h"

namespace obfs {

namespace {

constexpr unsigned kThreadsMax = 4;
constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME;

enum class Lease { kGranted, kRefused };

/**
 * Takes a read lease for a moment. Who opens the file for writing meanwhile waits until it is closed, and the kernel tells us by a signal:
 * by one that is ignored unless asked for, since the default one ends the process.
 */
Result<Lease> try_read_lease(int fd) {
  if (fcntl(fd, F_SETSIG, SIGURG) != 0) return last_errno();
  if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) return Lease::kGranted;
  if (errno == EAGAIN) return Lease::kRefused;
  return errno == EINVAL ? Errno{EOPNOTSUPP} : last_errno();
}

class WriterSearch {
 public:
  WriterSearch(UniqueFd root, size_t count_max) : root_(std::move(root)), count_max_(count_max) {}

  Result<std::vector<std::string>> run() {
    work_.add("");
    std::vector<std::thread> threads;
    const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, kThreadsMax);
    for (unsigned i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    if (error_ != 0) return Errno{error_};
    std::sort(found_.begin(), found_.end());
    return found_;
  }

 private:
  /** A thread's life. */
  void work() {
    while (const auto directory = work_.take()) {
      const Status status = search(*directory);
      // What vanishes while we look is not in the tree.
      if (!status.ok() && status.error() != ENOENT) fail(status.error());
      work_.mark_done();
    }
  }

  Status search(const std::string& path) {
    const auto directory = tree_walk::open_directory(root_.get(), path, O_NOATIME);
    if (!directory.ok()) return directory.failure();
    return tree_walk::for_each_entry(directory->get(),
                                     [&](const dirent& entry) { return look_at(directory->get(), path, entry); });
  }

  Status look_at(int directory, const std::string& path, const dirent& entry) {
    unsigned char type = entry.d_type;
    if (type == DT_UNKNOWN) {
      struct stat attr;
      if (fstatat(directory, entry.d_name, &attr, AT_SYMLINK_NOFOLLOW) != 0) return last_errno();
      type = IFTODT(attr.st_mode);
    }
    if (type == DT_DIR) work_.add(tree_walk::path_below(path, entry.d_name));
    return type == DT_REG ? look_at_file(directory, path, entry.d_name) : Status();
  }

  Status look_at_file(int directory, const std::string& path, const char* name) {
    const UniqueFd file(openat(directory, name, kFlags | O_NONBLOCK));
    if (!file.is_open()) return last_errno();
    const Result<Lease> lease = try_read_lease(file.get());
    if (!lease.ok()) return lease.failure();
    if (*lease == Lease::kRefused) note(tree_walk::path_below(path, name));
    return {};
  }

  void note(std::string path) {
    const std::lock_guard lock(mutex_);
    if (found_.size() < count_max_) found_.push_back(std::move(path));
    if (found_.size() >= count_max_) work_.give_up();
  }

  void fail(int error) {
    const std::lock_guard lock(mutex_);
    error_ = error;
    work_.give_up();
  }

  const UniqueFd root_;
  const size_t count_max_;
  tree_walk::WorkList work_;
  std::mutex mutex_;
  // Both under mutex_ while threads run:
  std::vector<std::string> found_;
  int error_ = 0;
};

}  // namespace

Result<std::vector<std::string>> files_open_for_writing(const std::string& root, size_t count_max) {
  UniqueFd opened(open(root.c_str(), kFlags | O_DIRECTORY));
  if (!opened.is_open()) return last_errno();
  return WriterSearch(std::move(opened), count_max).run();
}

}  // namespace obfs
