#include <fcntl.h>

#include <mutex>
#include <string>
#include <vector>

#include "backing.h"
#include "os_calls.h"

namespace obfs {

namespace {

struct RawHandle {
  union {
    struct file_handle header;
    unsigned char storage[sizeof(struct file_handle) + FileKey::kMaxBytes];
  };
  int mount_id = 0;
};

Result<RawHandle> raw_handle(int fd, const char* name, int flags) {
  RawHandle raw;
  raw.header.handle_bytes = FileKey::kMaxBytes;
  if (name_to_handle_at(fd, name, &raw.header, &raw.mount_id, flags) == 0) return raw;
  // EOVERFLOW: a handle longer than a key holds. For the person at the keyboard that is "no usable handles".
  return Errno{errno == EOVERFLOW ? EOPNOTSUPP : errno};
}

class HandlesBacking final : public Backing {
 public:
  Status add_root(int root) {
    const auto key = key_from(raw_handle(root, "", AT_EMPTY_PATH), root);
    return key.ok() ? Status() : Status(key.failure());
  }

  NodeMemory memory() const override { return NodeMemory::kNothing; }

  Result<FoundFile> identify(UniqueFd fd) override {
    FoundFile found;
    if (fstat(fd.get(), &found.attr) != 0) return last_errno();
    const auto key = key_from(raw_handle(fd.get(), "", AT_EMPTY_PATH), fd.get());
    if (!key.ok()) return key.failure();
    found.key = *key;
    found.fd = std::move(fd);
    return found;
  }

  Result<FileKey> key_of(int directory_fd, const char* name) override {
    const auto raw = raw_handle(directory_fd, name, 0);
    if (!raw.ok()) return raw.failure();
    if (known_mount(raw->mount_id) >= 0) return key_from(raw, -1);
    const auto fd = os::open_at(directory_fd, name, os::kNameOnly);
    if (!fd.ok()) return fd.failure();
    return key_from(raw_handle(fd->get(), "", AT_EMPTY_PATH), fd->get());
  }

  Result<UniqueFd> open(const FileKey& key, const std::string&, int flags) override {
    RawHandle raw;
    raw.header.handle_type = key.type;
    raw.header.handle_bytes = key.size;
    memcpy(raw.header.f_handle, key.bytes, key.size);
    UniqueFd fd(open_by_handle_at(mount_fd(key.mount), &raw.header, flags | O_CLOEXEC));
    if (!fd.is_open()) return last_errno();
    return fd;
  }

 private:
  struct Mount {
    int id;
    UniqueFd fd;
  };

  Result<FileKey> key_from(const Result<RawHandle>& raw, int fd) {
    if (!raw.ok()) return raw.failure();
    const auto mount = mount_index(raw->mount_id, fd);
    if (!mount.ok()) return mount.failure();
    FileKey key;
    key.mount = *mount;
    key.type = static_cast<uint8_t>(raw->header.handle_type);
    key.size = static_cast<uint8_t>(raw->header.handle_bytes);
    memcpy(key.bytes, raw->header.f_handle, key.size);
    return key;
  }

  Result<uint16_t> mount_index(int mount_id, int fd) {
    const int known = known_mount(mount_id);
    if (known >= 0) return static_cast<uint16_t>(known);
    auto opened = os::reopen(fd, O_RDONLY | O_NONBLOCK);  // open_by_handle_at takes no O_PATH descriptor as its mount
    if (!opened.ok()) return opened.failure();
    const std::lock_guard lock(mutex_);
    if (mounts_.size() >= UINT16_MAX) return Errno{EMFILE};
    mounts_.push_back(Mount{mount_id, std::move(*opened)});
    return static_cast<uint16_t>(mounts_.size() - 1);
  }

  int known_mount(int mount_id) {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < mounts_.size(); ++i) {
      if (mounts_[i].id == mount_id) return static_cast<int>(i);
    }
    return -1;
  }

  int mount_fd(uint16_t index) {
    const std::lock_guard lock(mutex_);
    return index < mounts_.size() ? mounts_[index].fd.get() : -1;
  }

  std::mutex mutex_;
  std::vector<Mount>
      mounts_;  ///< guarded by mutex_; only grows, so an index stays good (and an id is not recycled while held)
};

}  // namespace

Result<std::unique_ptr<Backing>> make_handles_backing(int root) {
  auto backing = std::make_unique<HandlesBacking>();
  const Status usable = backing->add_root(root);
  if (!usable.ok()) return usable.failure();
  return std::unique_ptr<Backing>(std::move(backing));
}

}  // namespace obfs
