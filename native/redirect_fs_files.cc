#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "redirect_fs.h"

namespace obfs {

namespace {

// Of the caller's flags: how it reads and writes. O_DIRECT asks for aligned buffers, which requests do not have; O_CREAT,
// O_EXCL and O_TRUNC were the kernel's to do.
constexpr int kKeptFlags = O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC | O_NOATIME;

int backing_flags(int flags) { return (flags & kKeptFlags) | O_NOCTTY | O_NONBLOCK | O_CLOEXEC; }

/** Reads an attribute (or the list) of `size` bytes at most; size 0 asks how long it is. */
template <typename Read>
Result<std::string> read_attribute(size_t size, Read read) {
  std::string value(size, '\0');
  const ssize_t length = read(value.data(), size);
  if (length < 0) return last_errno();
  value.resize(static_cast<size_t>(length));
  return value;
}

}  // namespace

Result<std::unique_ptr<FileHandle>> RedirectFs::open(NodeId id, int flags) {
  const NodeRef node = inodes_.find(id);
  if (node == nullptr) return Errno{ESTALE};
  auto fd = node->tree->directory->backing().open(node->key, backing_flags(flags));
  if (!fd.ok() && fd.error() == ESTALE) {
    // Its last name is gone; the pinned descriptor still reaches it.
    const auto pinned = inodes_.descriptors().open(*node);
    if (!pinned.ok()) return pinned.failure();
    UniqueFd reopened(::open(descriptor_path((*pinned)->get()).c_str(), backing_flags(flags)));
    if (!reopened.is_open()) return last_errno();
    return std::make_unique<FileHandle>(std::move(reopened), node->tree);
  }
  if (!fd.ok()) return fd.failure();
  return std::make_unique<FileHandle>(*std::move(fd), node->tree);
}

Result<CreatedFile> RedirectFs::create(const Caller& caller, NodeId parent, const char* name, mode_t mode, int flags) {
  const auto at = parent_of(caller, parent, name);
  if (!at.ok()) return at.failure();
  // O_EXCL stays the caller's: without it a file that appeared meanwhile is opened with the caller's own rights.
  const int open_flags = backing_flags(flags) | O_CREAT | O_NOFOLLOW | (flags & O_EXCL);
  auto fd = as_caller(caller, *at, [&]() -> Result<UniqueFd> {
    UniqueFd created(openat(at->fd->get(), name, open_flags, mode));
    if (!created.is_open()) return last_errno();
    return created;
  });
  if (!fd.ok()) return fd.failure();
  at->tree->note_change();
  UniqueFd known(fcntl(fd->get(), F_DUPFD_CLOEXEC, 0));
  if (!known.is_open()) return last_errno();
  auto entry = enter(*at, std::move(known));
  if (!entry.ok()) return entry.failure();
  if (!S_ISREG(entry->attr.st_mode)) {
    forget(entry->id, 1);
    return Errno{ESTALE};  // something else took the name meanwhile; the kernel looks it up anew
  }
  return CreatedFile{*entry, std::make_unique<FileHandle>(*std::move(fd), at->tree)};
}

void RedirectFs::wrote(const FileHandle& handle) { handle.tree->note_change(); }

Status RedirectFs::fallocate(const FileHandle& handle, int mode, off_t offset, off_t length) {
  const Status done = status_of(::fallocate(handle.fd.get(), mode, offset, length));
  if (done.ok()) handle.tree->note_change();
  return done;
}

Result<std::string> RedirectFs::getxattr(const Caller& caller, NodeId id, const char* name, size_t size) {
  if (id == kDoorsId) return Errno{ENODATA};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const std::string path = descriptor_path(file->fd->get());
  return as_checked(caller, file->is_shared_root, *file, [&] {
    return read_attribute(size, [&](char* value, size_t room) { return ::getxattr(path.c_str(), name, value, room); });
  });
}

Result<std::string> RedirectFs::listxattr(const Caller& caller, NodeId id, size_t size) {
  if (id == kDoorsId) return std::string();
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const std::string path = descriptor_path(file->fd->get());
  return as_checked(caller, file->is_shared_root, *file, [&] {
    return read_attribute(size, [&](char* value, size_t room) { return ::listxattr(path.c_str(), value, room); });
  });
}

Status RedirectFs::setxattr(const Caller& caller, NodeId id, const char* name, const char* value, size_t size,
                            int flags) {
  if (id == kDoorsId) return Errno{EPERM};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const std::string path = descriptor_path(file->fd->get());
  const Status done = as_checked(caller, file->is_shared_root, *file,
                                 [&] { return status_of(::setxattr(path.c_str(), name, value, size, flags)); });
  if (done.ok()) file->tree->note_change();
  return done;
}

Status RedirectFs::removexattr(const Caller& caller, NodeId id, const char* name) {
  if (id == kDoorsId) return Errno{EPERM};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const std::string path = descriptor_path(file->fd->get());
  const Status done =
      as_checked(caller, file->is_shared_root, *file, [&] { return status_of(::removexattr(path.c_str(), name)); });
  if (done.ok()) file->tree->note_change();
  return done;
}

}  // namespace obfs
