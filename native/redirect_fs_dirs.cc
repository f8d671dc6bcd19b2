#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "os_calls.h"
#include "redirect_fs.h"

namespace obfs {

namespace {

bool is_dot(const char* name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

bool is_directory(int fd) {
  struct stat attr;
  return fstat(fd, &attr) == 0 && S_ISDIR(attr.st_mode);
}

Entry listed_entry(const dirent& found) {
  Entry entry = {};
  entry.attr.st_ino = found.d_ino;
  entry.attr.st_mode = DTTOIF(found.d_type);
  return entry;
}

}  // namespace

Result<std::unique_ptr<DirectoryHandle>> RedirectFs::opendir(const Caller& caller, NodeId id) {
  if (id == kDoorsId) return std::make_unique<DirectoryHandle>(nullptr, nullptr, nullptr, caller.uid);
  const auto at = target(caller, id);
  if (!at.ok()) return at.failure();
  DIR* stream = nullptr;
  if (at->is_shared_root()) {
    auto fd = as_caller(caller, *at, [&] { return os::open_at(at->fd->get(), ".", O_RDONLY | O_DIRECTORY); });
    if (!fd.ok()) return fd.failure();
    stream = fdopendir(fd->get());
    if (stream == nullptr) return last_errno();
    fd->release();
  } else if (!is_directory(at->fd->get())) {
    return Errno{ENOTDIR};
  }
  return std::make_unique<DirectoryHandle>(stream, at->tree, at->node, caller.uid);
}

/** Needs the handle's lock. */
Status RedirectFs::open_stream(DirectoryHandle& handle) {
  if (handle.stream != nullptr) return Status();
  auto fd = inodes_.open(*handle.node, O_RDONLY | O_DIRECTORY);
  if (!fd.ok()) return fd.failure();
  handle.stream = fdopendir(fd->get());
  if (handle.stream == nullptr) return last_errno();
  fd->release();
  return Status();
}

// macOS shares one handle of a directory between all who have it open, and on Linux it can be passed on: at the shared root
// it is the reader who counts, not who opened it.
Status RedirectFs::readdir(const Caller& caller, DirectoryHandle& handle, off_t offset, bool with_lookups,
                           const DirectorySink& sink) {
  if (handle.is_empty()) return Status();
  if (handle.node == nullptr && handle.opener != caller.uid) {
    const auto own = opendir(caller, kRootId);
    return own.ok() ? list(**own, offset, with_lookups, sink) : Status(own.failure());
  }
  return list(handle, offset, with_lookups, sink);
}

// Names at the shared root differ by caller, so nothing listed there may become a dentry: it carries no nodes.
Status RedirectFs::list(DirectoryHandle& handle, off_t offset, bool with_lookups, const DirectorySink& sink) {
  const std::lock_guard lock(handle.mutex);
  if (const Status opened = open_stream(handle); !opened.ok()) return opened;
  if (offset != handle.offset) seekdir(handle.stream, offset);
  const bool enters = with_lookups && handle.node != nullptr;
  for (;;) {
    errno = 0;
    const dirent* const found = ::readdir(handle.stream);
    if (found == nullptr) return errno == 0 ? Status() : Status(last_errno());
    Entry entry = listed_entry(*found);
    if (enters && !is_dot(found->d_name)) {
      auto child = handle.tree->directory->backing().look_up(dirfd(handle.stream), found->d_name);
      if (child.ok()) {
        const auto entered = enter(Target{handle.tree, nullptr, handle.node}, found->d_name, *std::move(child));
        if (entered.ok()) entry = *entered;
      }
    }
    if (!sink(found->d_name, telldir(handle.stream), entry)) {
      if (entry.id != 0) forget(entry.id, 1);
      handle.offset = -1;  // the stream stands behind an entry that the kernel has not got
      return Status();
    }
    handle.offset = telldir(handle.stream);
  }
}

Status RedirectFs::fsyncdir(DirectoryHandle& handle, bool data_only) {
  if (handle.is_empty()) return Status();
  const std::lock_guard lock(handle.mutex);
  if (const Status opened = open_stream(handle); !opened.ok()) return opened;
  const int fd = dirfd(handle.stream);
  return data_only ? os::sync_data(fd) : status_of(fsync(fd));
}

}  // namespace obfs
