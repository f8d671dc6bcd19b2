#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "os_calls.h"
#include "redirect_fs.h"

namespace obfs {

namespace {

constexpr std::string_view kTrusted = "trusted.";

/** Kernels before 6.2 leave it to the file system who may change these: the access control lists. */
bool is_left_to_us(std::string_view attribute) { return attribute.starts_with("system."); }

bool is_access_list(std::string_view attribute) { return attribute.starts_with("system.posix_acl_"); }

/** Takes the names away that only privileged callers are shown. */
std::string without_trusted(const std::string& names) {
  std::string shown;
  for (size_t start = 0; start < names.size();) {
    const size_t end = std::min(names.find('\0', start), names.size() - 1) + 1;
    if (names.compare(start, kTrusted.size(), kTrusted) != 0) shown.append(names, start, end - start);
    start = end;
  }
  return shown;
}

}  // namespace

Result<std::unique_ptr<FileHandle>> RedirectFs::open(NodeId id, int flags) {
  const NodeRef node = inodes_.find(id);
  if (node == nullptr) return Errno{ESTALE};
  RequestCount::is_for(*node->tree);
  auto fd = os::is_plain_read(flags) ? inodes_.readable(*node) : inodes_.open_anew(*node, os::access_flags(flags));
  if (!fd.ok()) return fd.failure();
  return std::make_unique<FileHandle>(*std::move(fd), node);
}

Result<CreatedFile> RedirectFs::create(const Caller& caller, NodeId parent, const char* name, mode_t mode, int flags) {
  const auto at = parent_of(caller, parent, name);
  if (!at.ok()) return at.failure();
  // O_EXCL stays the caller's: without it a file that appeared meanwhile is opened with the caller's own rights.
  const int open_flags = os::access_flags(flags) | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (flags & O_EXCL);
  auto fd = as_caller(caller, *at, [&]() -> Result<UniqueFd> {
    UniqueFd created(openat(at->fd->get(), name, open_flags, mode));
    if (!created.is_open()) return last_errno();
    return created;
  });
  if (!fd.ok()) return fd.failure();
  at->tree->note_change();
  Backing& backing = at->tree->directory->backing();
  auto found = backing.identify(*std::move(fd));
  if (!found.ok()) return found.failure();
  auto opened = std::make_shared<const UniqueFd>(std::move(found->fd));
  if (is_met_at_every_walk(*at) || backing.memory() == NodeMemory::kDescriptor) {
    // Not a duplicate: it is kept while the file is known, and would hold the file open for writing all that time.
    auto known = os::reopen(opened->get(), os::kNameOnly);
    if (!known.ok()) return known.failure();
    found->fd = *std::move(known);
  }
  auto entry = enter(*at, name, *std::move(found));
  if (!entry.ok()) return entry.failure();
  if (!S_ISREG(entry->attr.st_mode)) {
    forget(entry->id, 1);
    return Errno{ESTALE};  // something else took the name meanwhile; the kernel looks it up anew
  }
  return CreatedFile{*entry, std::make_unique<FileHandle>(std::move(opened), inodes_.find(entry->id))};
}

void RedirectFs::wrote(const FileHandle& file) { file.tree->note_change(); }

Result<bool> RedirectFs::clear_set_ids(const FileHandle& file) {
  struct stat attr;
  if (fstat(file.fd->get(), &attr) != 0) return last_errno();
  // Without the right to execute, the set-group bit means something else.
  mode_t cleared = S_ISUID;
  if ((attr.st_mode & S_IXGRP) != 0) cleared |= S_ISGID;
  if ((attr.st_mode & cleared) == 0) return false;
  if (fchmod(file.fd->get(), attr.st_mode & 07777 & ~cleared) != 0) return last_errno();
  return true;
}

Status RedirectFs::fallocate(const FileHandle& file, int mode, off_t offset, off_t length) {
  const Status done = os::allocate(file.fd->get(), mode, offset, length);
  if (done.ok()) file.tree->note_change();
  return done;
}

// The kernel checks access control lists by itself and remembers them with the node: the shared root has none, whoever asks. Where
// the backing file system has none either, it is to hear "no such attribute": another error would refuse all access.
Result<std::string> RedirectFs::getxattr(const Caller& caller, NodeId id, const char* name, size_t size) {
  const bool is_list = is_access_list(name);
  if (id == kDoorsId) return Errno{os::kNoAttribute};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  if (file->is_shared_root() && is_list) return Errno{os::kNoAttribute};
  auto value = as_checked(caller, *file, [&] { return os::get_xattr(file->fd->get(), name, size); });
  if (is_list && !value.ok() && value.error() == EOPNOTSUPP) return Errno{os::kNoAttribute};
  return value;
}

Result<std::string> RedirectFs::listxattr(const Caller& caller, NodeId id, size_t size) {
  if (id == kDoorsId) return std::string();
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  auto names = as_checked(caller, *file, [&] { return os::list_xattrs(file->fd->get(), size); });
  // The length alone may be too long: the daemon's CAP_SYS_ADMIN counts names that it will not show.
  if (!names.ok() || size == 0 || caller.uid == 0) return names;
  return without_trusted(*names);
}

Status RedirectFs::setxattr(const Caller& caller, NodeId id, const char* name, const char* value, size_t size,
                            int flags) {
  if (id == kDoorsId) return Errno{EPERM};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const auto change = [&] { return os::set_xattr(file->fd->get(), name, value, size, flags); };
  const Status done = is_left_to_us(name) ? as_caller(caller, *file, change) : as_checked(caller, *file, change);
  if (done.ok()) file->tree->note_change();
  return done;
}

Status RedirectFs::removexattr(const Caller& caller, NodeId id, const char* name) {
  if (id == kDoorsId) return Errno{EPERM};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const auto change = [&] { return os::remove_xattr(file->fd->get(), name); };
  const Status done = is_left_to_us(name) ? as_caller(caller, *file, change) : as_checked(caller, *file, change);
  if (done.ok()) file->tree->note_change();
  return done;
}

}  // namespace obfs
