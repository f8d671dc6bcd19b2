#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "redirect_fs.h"

namespace obfs {

namespace {

constexpr timespec kUnchanged{0, UTIME_OMIT};

Status change_ids(const Tree& tree, int fd, const AttributeChange& change) {
  const uid_t uid = change.uid ? tree.stored_uid(*change.uid) : static_cast<uid_t>(-1);
  const gid_t gid = change.gid ? tree.stored_gid(*change.gid) : static_cast<gid_t>(-1);
  return status_of(fchownat(fd, "", uid, gid, AT_EMPTY_PATH));
}

Status change_times(int fd, const AttributeChange& change) {
  const timespec times[2] = {change.atime.value_or(kUnchanged), change.mtime.value_or(kUnchanged)};
  return status_of(utimensat(AT_FDCWD, descriptor_path(fd).c_str(), times, 0));
}

}  // namespace

Result<Attributes> RedirectFs::setattr(const Caller& caller, NodeId id, const AttributeChange& change,
                                       const FileHandle* handle) {
  if (id == kDoorsId) return Errno{EPERM};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const Status done = as_checked(caller, file->is_shared_root, *file, [&] { return apply(*file, id, change, handle); });
  file->tree->note_change();  // also after a failure: a part of it may be done
  if (!done.ok()) return done.failure();
  return getattr(caller, id, handle);
}

// Owner before mode: changing the owner clears the set-id bits, and the mode that came along already says what is left of them.
Status RedirectFs::apply(const Target& file, NodeId id, const AttributeChange& change, const FileHandle* handle) {
  const int fd = file.fd->get();
  if (change.uid || change.gid) {
    if (const Status done = change_ids(*file.tree, fd, change); !done.ok()) return done;
  }
  if (change.mode) {
    if (const Status done = status_of(chmod(descriptor_path(fd).c_str(), *change.mode)); !done.ok()) return done;
  }
  if (change.size && handle != nullptr) {
    if (const Status done = status_of(ftruncate(handle->fd.get(), *change.size)); !done.ok()) return done;
  } else if (change.size) {
    const auto opened = open(id, O_WRONLY);
    if (!opened.ok()) return opened.failure();
    if (const Status done = status_of(ftruncate((*opened)->fd.get(), *change.size)); !done.ok()) return done;
  }
  if (change.atime || change.mtime) return change_times(fd, change);
  return Status();
}

template <typename Make>
Result<Entry> RedirectFs::make(const Caller& caller, NodeId parent, const char* name, Make make_child) {
  const auto at = parent_of(caller, parent, name);
  if (!at.ok()) return at.failure();
  const Status made = as_caller(caller, *at, [&] { return status_of(make_child(at->fd->get())); });
  if (!made.ok()) return made.failure();
  at->tree->note_change();
  return entry_of_name(*at, name, caller);
}

Result<Entry> RedirectFs::mknod(const Caller& caller, NodeId parent, const char* name, mode_t mode, dev_t device) {
  return make(caller, parent, name, [&](int at) { return mknodat(at, name, mode, device); });
}

Result<Entry> RedirectFs::mkdir(const Caller& caller, NodeId parent, const char* name, mode_t mode) {
  return make(caller, parent, name, [&](int at) { return mkdirat(at, name, mode); });
}

Result<Entry> RedirectFs::symlink(const Caller& caller, NodeId parent, const char* name, const char* target) {
  return make(caller, parent, name, [&](int at) { return symlinkat(target, at, name); });
}

// The link is made through the descriptor, whatever became of the names meanwhile. Nobody can link into another tree.
Result<Entry> RedirectFs::link(const Caller& caller, NodeId id, NodeId new_parent, const char* new_name) {
  if (id == kRootId || id == kDoorsId) return Errno{EPERM};
  const auto at = parent_of(caller, new_parent, new_name);
  if (!at.ok()) return at.failure();
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  if (file->tree->directory != at->tree->directory) return Errno{EXDEV};
  const std::string source = descriptor_path(file->fd->get());
  const Status linked = as_checked(caller, at->is_shared_root, *at, [&] {
    return status_of(linkat(AT_FDCWD, source.c_str(), at->fd->get(), new_name, AT_SYMLINK_FOLLOW));
  });
  if (!linked.ok()) return linked.failure();
  at->tree->note_change();
  return entry_of_name(*at, new_name, caller);
}

RedirectFs::Victim RedirectFs::victim(const Target& parent, const char* name) {
  const auto key = parent.tree->directory->backing().key_of(parent.fd->get(), name);
  if (!key.ok()) return {};
  NodeRef node = inodes_.find(*parent.tree, *key);
  if (node == nullptr) return {};
  auto fd = inodes_.descriptors().open(*node);
  return fd.ok() ? Victim{std::move(node), *std::move(fd)} : Victim{};
}

// An open file, or a process standing in a directory, may still ask for its attributes; its handle is stale by now.
void RedirectFs::keep_if_nameless(const Victim& victim) {
  if (victim.node == nullptr) return;
  struct stat attr;
  const bool has_names = fstat(victim.fd->get(), &attr) == 0 && !S_ISDIR(attr.st_mode) && attr.st_nlink > 0;
  if (!has_names) inodes_.descriptors().pin(*victim.node, victim.fd);
}

Status RedirectFs::remove(const Caller& caller, NodeId parent, const char* name, int flags) {
  const auto at = parent_of(caller, parent, name);
  if (!at.ok()) return at.failure();
  const Victim removed = victim(*at, name);
  const Status done =
      as_checked(caller, at->is_shared_root, *at, [&] { return status_of(unlinkat(at->fd->get(), name, flags)); });
  if (!done.ok()) return done;
  at->tree->note_change();
  keep_if_nameless(removed);
  return done;
}

Status RedirectFs::unlink(const Caller& caller, NodeId parent, const char* name) {
  return remove(caller, parent, name, 0);
}

Status RedirectFs::rmdir(const Caller& caller, NodeId parent, const char* name) {
  return remove(caller, parent, name, AT_REMOVEDIR);
}

Status RedirectFs::rename(const Caller& caller, NodeId parent, const char* name, NodeId new_parent,
                          const char* new_name, unsigned flags) {
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) return Errno{EINVAL};
  const auto from = parent_of(caller, parent, name);
  if (!from.ok()) return from.failure();
  const auto to = parent_of(caller, new_parent, new_name);
  if (!to.ok()) return to.failure();
  if (from->tree->directory != to->tree->directory) return Errno{EXDEV};
  const Victim replaced = flags == 0 ? victim(*to, new_name) : Victim{};
  const bool is_at_root = from->is_shared_root || to->is_shared_root;
  const Target& checked = from->is_shared_root ? *from : *to;
  const Status done = as_checked(caller, is_at_root, checked, [&] {
    return status_of(renameat2(from->fd->get(), name, to->fd->get(), new_name, flags));
  });
  if (!done.ok()) return done;
  to->tree->note_change();
  if (from->tree != to->tree) from->tree->note_change();
  keep_if_nameless(replaced);
  return done;
}

}  // namespace obfs
