#include <fcntl.h>

#include <cstring>
#include <string>

#include "backing.h"
#include "os_calls.h"

namespace obfs {

namespace {

template <typename Value>
void append(FileKey& key, const Value& value) {
  memcpy(key.bytes + key.size, &value, sizeof value);
  key.size += sizeof value;
}

/** Inode numbers are recycled; with the time of birth they are not, but for files that live less than the clock's tick. */
FileKey key_from(const struct stat& attr, timespec born) {
  FileKey key;
  append(key, attr.st_dev);
  append(key, attr.st_ino);
  append(key, born.tv_sec);
  append(key, born.tv_nsec);
  return key;
}

Result<FoundFile> described(int directory_fd, const char* name) {
  const auto description = os::describe(directory_fd, name);
  if (!description.ok()) return description.failure();
  return FoundFile{UniqueFd(), description->attr, key_from(description->attr, description->born)};
}

Result<FoundFile> identify_by_inode(UniqueFd fd) {
  auto found = described(fd.get(), "");
  if (found.ok()) found->fd = std::move(fd);
  return found;
}

class DescriptorsBacking : public Backing {
 public:
  NodeMemory memory() const override { return NodeMemory::kDescriptor; }

  Result<FoundFile> identify(UniqueFd fd) override { return identify_by_inode(std::move(fd)); }

  Result<FileKey> key_of(int directory_fd, const char* name) override {
    const auto found = described(directory_fd, name);
    if (!found.ok()) return found.failure();
    return found->key;
  }

  // The table keeps a descriptor of every node; without one there is nothing to find the file by.
  Result<UniqueFd> open(const FileKey&, const std::string&, int) override { return Errno{ESTALE}; }
};

class PathsBacking final : public DescriptorsBacking {
 public:
  explicit PathsBacking(int root) : root_(root) {}

  NodeMemory memory() const override { return NodeMemory::kNames; }

  Result<FoundFile> look_up(int directory_fd, const char* name) override { return described(directory_fd, name); }

  // What is found at the path must be what was there: names change hands, also around the mount.
  Result<UniqueFd> open(const FileKey& key, const std::string& path, int flags) override {
    auto fd = open_in_legs(path, flags);
    if (!fd.ok()) return is_gone(fd.error()) ? Errno{ESTALE} : fd.failure();
    auto found = identify_by_inode(*std::move(fd));
    if (!found.ok()) return found.failure();
    if (!(found->key == key)) return Errno{ESTALE};
    return std::move(found->fd);
  }

 private:
  // A path that its user reaches from some directory may be longer, from the root, than the kernel takes at once.
  Result<UniqueFd> open_in_legs(const std::string& path, int flags) const {
    UniqueFd reached;
    size_t start = 0;
    while (path.size() - start >= kLegBytesMax) {
      const size_t end = path.rfind('/', start + kLegBytesMax - 1);
      auto leg = os::open_beneath(reached.is_open() ? reached.get() : root_, path.substr(start, end - start).c_str(),
                                  os::kNameOnly | O_DIRECTORY);
      if (!leg.ok()) return leg;
      reached = *std::move(leg);
      start = end + 1;
    }
    return os::open_beneath(reached.is_open() ? reached.get() : root_, path.c_str() + start, flags);
  }

  static constexpr size_t kLegBytesMax = 1000;  // below macOS's PATH_MAX of 1,024, and above any one name

  static bool is_gone(int error) { return error == ENOENT || error == ENOTDIR || error == EXDEV; }

  const int root_;
};

}  // namespace

std::unique_ptr<Backing> make_descriptors_backing() { return std::make_unique<DescriptorsBacking>(); }

std::unique_ptr<Backing> make_paths_backing(int root) { return std::make_unique<PathsBacking>(root); }

}  // namespace obfs
