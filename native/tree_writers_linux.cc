#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

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
    waiting_.push_back("");
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
    std::string directory;
    while (take(directory)) {
      const Status status = search(directory);
      const std::lock_guard lock(mutex_);
      // What vanishes while we look is not in the tree.
      if (!status.ok() && status.error() != ENOENT) error_ = status.error();
      --under_way_;
      changed_.notify_all();
    }
  }

  bool take(std::string& directory) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !waiting_.empty() || under_way_ == 0 || is_over(); });
    if (waiting_.empty() || is_over()) return false;
    directory = std::move(waiting_.back());
    waiting_.pop_back();
    ++under_way_;
    return true;
  }

  bool is_over() const { return error_ != 0 || found_.size() >= count_max_; }

  Status search(const std::string& path) {
    UniqueFd opened(openat(root_.get(), path.empty() ? "." : path.c_str(), kFlags | O_DIRECTORY));
    if (!opened.is_open()) return last_errno();
    const int fd = opened.get();
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(fd), closedir);
    if (entries == nullptr) return last_errno();
    (void)opened.release();
    for (errno = 0; const dirent* entry = readdir(entries.get()); errno = 0) {
      if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
      const Status status = look_at(fd, path, *entry);
      if (!status.ok()) return status;
    }
    return errno == 0 ? Status() : last_errno();
  }

  Status look_at(int directory, const std::string& path, const dirent& entry) {
    unsigned char type = entry.d_type;
    if (type == DT_UNKNOWN) {
      struct stat attr;
      if (fstatat(directory, entry.d_name, &attr, AT_SYMLINK_NOFOLLOW) != 0) return last_errno();
      type = IFTODT(attr.st_mode);
    }
    const std::string name = path.empty() ? entry.d_name : path + "/" + entry.d_name;
    if (type == DT_DIR) add_directory(name);
    return type == DT_REG ? look_at_file(directory, entry.d_name, name) : Status();
  }

  Status look_at_file(int directory, const char* name, const std::string& path) {
    const UniqueFd file(openat(directory, name, kFlags | O_NONBLOCK));
    if (!file.is_open()) return last_errno();
    const Result<Lease> lease = try_read_lease(file.get());
    if (!lease.ok()) return lease.failure();
    if (*lease == Lease::kRefused) {
      const std::lock_guard lock(mutex_);
      if (found_.size() < count_max_) found_.push_back(path);
    }
    return {};
  }

  void add_directory(const std::string& path) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(path);
    changed_.notify_one();
  }

  const UniqueFd root_;
  const size_t count_max_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // All under mutex_ while threads run:
  std::vector<std::string> waiting_;
  std::vector<std::string> found_;
  size_t under_way_ = 0;
  int error_ = 0;
};

}  // namespace

Result<std::vector<std::string>> files_open_for_writing(const std::string& root, size_t count_max) {
  UniqueFd opened(open(root.c_str(), kFlags | O_DIRECTORY));
  if (!opened.is_open()) return last_errno();
  return WriterSearch(std::move(opened), count_max).run();
}

}  // namespace obfs
