#include "tree_usage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <vector>

#include "shared_extents.h"
#include "tree_walk.h"
#include "unique_fd.h"

namespace obfs {

namespace {

constexpr uint64_t kBlockBytes = 512;

class Measurement {
 public:
  explicit Measurement(UniqueFd root) : root_(std::move(root)) {}

  Result<TreeUsage> run() {
    struct stat attr;
    if (fstat(root_.get(), &attr) != 0) return last_errno();
    device_ = attr.st_dev;
    usage_.bytes += bytes_of(attr);
    for (waiting_.push_back(""); !waiting_.empty();) {
      const std::string directory = std::move(waiting_.back());
      waiting_.pop_back();
      const Status status = measure_directory(directory);
      if (!status.ok() && status.error() != ENOENT) return status.failure();
    }
    for (const auto& [inode, names] : linked_) {
      if (names.left > 0) usage_.shared_bytes += names.bytes - names.shared_bytes;
    }
    return usage_;
  }

 private:
  /** A file with several names: how many of them were not met yet. */
  struct Names {
    uint64_t left;
    uint64_t bytes;
    uint64_t shared_bytes;
  };

  static uint64_t bytes_of(const struct stat& attr) { return static_cast<uint64_t>(attr.st_blocks) * kBlockBytes; }

  Status measure_directory(const std::string& path) {
    const auto directory = tree_walk::open_directory(root_.get(), path);
    if (!directory.ok()) return directory.failure();
    const int fd = directory->get();
    return tree_walk::for_each_entry(fd, [&](const dirent& entry) {
      struct stat attr;
      if (fstatat(fd, entry.d_name, &attr, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? Status() : Status(last_errno());
      }
      if (attr.st_dev == device_) measure_entry(fd, path, entry.d_name, attr);
      return Status();
    });
  }

  void measure_entry(int directory, const std::string& path, const char* name, const struct stat& attr) {
    if (S_ISDIR(attr.st_mode)) {
      usage_.bytes += bytes_of(attr);
      waiting_.push_back(tree_walk::path_below(path, name));
      return;
    }
    ++usage_.files;
    if (attr.st_nlink > 1) {
      const auto known = linked_.find(attr.st_ino);
      if (known != linked_.end()) {
        --known->second.left;
        return;
      }
    }
    const uint64_t shared = S_ISREG(attr.st_mode) && attr.st_blocks > 0 ? shared_bytes_of(directory, name) : 0;
    usage_.bytes += bytes_of(attr);
    usage_.shared_bytes += shared;
    if (attr.st_nlink > 1) linked_[attr.st_ino] = {uint64_t{attr.st_nlink} - 1, bytes_of(attr), shared};
  }

  const UniqueFd root_;
  dev_t device_ = 0;
  TreeUsage usage_;
  std::vector<std::string> waiting_;
  std::map<ino_t, Names> linked_;
};

}  // namespace

Result<TreeUsage> measure_tree(const std::string& root) {
  UniqueFd opened(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened.is_open()) return last_errno();
  return Measurement(std::move(opened)).run();
}

}  // namespace obfs
