#include <fcntl.h>
#include <unistd.h>

#include "os_calls.h"
#include "redirect_fs.h"

namespace obfs {

namespace {

constexpr timespec kUnchanged{0, UTIME_OMIT};

Status change_ids(const Tree& tree, int fd, const AttributeChange& change) {
  const uid_t uid = change.uid ? tree.stored_uid(*change.uid) : static_cast<uid_t>(-1);
  const gid_t gid = change.gid ? tree.stored_gid(*change.gid) : static_cast<gid_t>(-1);
  return os::set_owner(fd, uid, gid);
}

Status change_times(int fd, const AttributeChange& change) {
  const timespec times[2] = {change.atime.value_or(kUnchanged), change.mtime.value_or(kUnchanged)};
  return os::set_times(fd, times);
}

}  // namespace

Result<Attributes> RedirectFs::setattr(const Caller& caller, NodeId id, const AttributeChange& change,
                                       const FileHandle* handle) {
  if (id == kDoorsId) return Errno{EPERM};
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  const Status done = as_checked(caller, *file, [&] { return apply(*file, id, change, handle); });
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
    if (const Status done = os::set_mode(fd, *change.mode); !done.ok()) return done;
  }
  if (change.size) {
    const auto opened = handle == nullptr ? open(id, O_WRONLY) : std::unique_ptr<FileHandle>();
    if (!opened.ok()) return opened.failure();
    const FileHandle& written = handle == nullptr ? **opened : *handle;
    if (change.clears_set_ids) {
      if (const auto cleared = clear_set_ids(written); !cleared.ok()) return cleared.failure();
    }
    if (const Status done = status_of(ftruncate(written.fd->get(), *change.size)); !done.ok()) return done;
  }
  if (change.atime || change.mtime) return change_times(fd, change);
  return Status();
}

// The kernel takes a file of that kind for an answer, or the advice to try again: anything else is EIO to its caller.
Result<Entry> RedirectFs::entry_of_made(const Target& parent, const char* name, const Caller& caller, mode_t kind) {
  const auto entry = entry_of_name(parent, name, caller);
  if (!entry.ok()) return entry.error() == ENOENT ? Errno{ESTALE} : entry;
  if (entry->id == 0) return Errno{ESTALE};
  if ((entry->attr.st_mode & S_IFMT) == kind) return entry;
  forget(entry->id, 1);
  return Errno{ESTALE};
}

template <typename Make>
Result<Entry> RedirectFs::make(const Caller& caller, NodeId parent, const char* name, mode_t kind, Make make_child) {
  const auto at = parent_of(caller, parent, name);
  if (!at.ok()) return at.failure();
  const Status made = as_caller(caller, *at, [&] { return status_of(make_child(at->fd->get())); });
  if (!made.ok()) return made.failure();
  at->tree->note_change();
  return entry_of_made(*at, name, caller, kind);
}

Result<Entry> RedirectFs::mknod(const Caller& caller, NodeId parent, const char* name, mode_t mode, dev_t device) {
  const mode_t kind = (mode & S_IFMT) == 0 ? S_IFREG : mode & S_IFMT;
  return make(caller, parent, name, kind, [&](int at) { return mknodat(at, name, mode, device); });
}

Result<Entry> RedirectFs::mkdir(const Caller& caller, NodeId parent, const char* name, mode_t mode) {
  return make(caller, parent, name, S_IFDIR, [&](int at) { return mkdirat(at, name, mode); });
}

Result<Entry> RedirectFs::symlink(const Caller& caller, NodeId parent, const char* name, const char* target) {
  return make(caller, parent, name, S_IFLNK, [&](int at) { return symlinkat(target, at, name); });
}

// The link is made through the descriptor, whatever became of the names meanwhile. Nobody can link into another tree.
Result<Entry> RedirectFs::link(const Caller& caller, NodeId id, NodeId new_parent, const char* new_name) {
  if (id == kRootId || id == kDoorsId) return Errno{EPERM};
  const auto at = parent_of(caller, new_parent, new_name);
  if (!at.ok()) return at.failure();
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  if (file->tree->directory != at->tree->directory) return Errno{EXDEV};
  struct stat attr;
  if (fstat(file->fd->get(), &attr) != 0) return last_errno();
  const Status linked = as_checked(caller, *at, [&] { return os::link_to(file->fd->get(), at->fd->get(), new_name); });
  if (!linked.ok()) return linked.failure();
  at->tree->note_change();
  return entry_of_made(*at, new_name, caller, attr.st_mode & S_IFMT);
}

RedirectFs::Victim RedirectFs::victim(const Target& parent, const char* name) {
  const auto key = parent.tree->directory->backing().key_of(parent.fd->get(), name);
  if (!key.ok()) return {};
  NodeRef node = inodes_.find(*parent.tree, *key);
  if (node == nullptr) return {};
  auto fd = inodes_.descriptor(*node);
  return fd.ok() ? Victim{std::move(node), *std::move(fd)} : Victim{};
}

// An open file, or a process standing in a directory, may still ask for its attributes; nothing leads to it by now.
void RedirectFs::lost_name(const Victim& victim, const NodeName& name) {
  if (victim.node == nullptr) return;
  const bool is_known_by_another = inodes_.remove_name(*victim.node, name);
  struct stat attr;
  const bool has_names = fstat(victim.fd->get(), &attr) == 0 && !S_ISDIR(attr.st_mode) && attr.st_nlink > 0;
  const bool needs_name = victim.node->tree->directory->backing().memory() == NodeMemory::kNames;
  if (!has_names || (needs_name && !is_known_by_another)) inodes_.keep_nameless(*victim.node, victim.fd);
}

void RedirectFs::renamed(const Victim& moved, const NodeName& from, const NodeName& to) {
  if (moved.node == nullptr) return;
  inodes_.add_name(*moved.node, to);
  inodes_.remove_name(*moved.node, from);
}

Status RedirectFs::remove(const Caller& caller, NodeId parent, const char* name, int flags) {
  const auto at = parent_of(caller, parent, name);
  if (!at.ok()) return at.failure();
  const Victim removed = victim(*at, name);
  const Status done = as_checked(caller, *at, [&] { return status_of(unlinkat(at->fd->get(), name, flags)); });
  if (!done.ok()) return done;
  at->tree->note_change();
  lost_name(removed, at->child(name));
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
  if ((flags & ~(os::kNoReplace | os::kExchange)) != 0) return Errno{EINVAL};
  const auto from = parent_of(caller, parent, name);
  if (!from.ok()) return from.failure();
  const auto to = parent_of(caller, new_parent, new_name);
  if (!to.ok()) return to.failure();
  if (from->tree->directory != to->tree->directory) return Errno{EXDEV};
  // The kernel moves its dentry along, and that stays valid for as long as was said below: every caller would find it at the root.
  const bool is_exchange = (flags & os::kExchange) != 0;
  if (to->is_shared_root() && entry_timeout(*from) > 0) return Errno{EXDEV};
  if (is_exchange && from->is_shared_root() && entry_timeout(*to) > 0) return Errno{EXDEV};
  const Victim moved = victim(*from, name);
  const Victim other = victim(*to, new_name);
  const Target& checked = from->is_shared_root() ? *from : *to;
  const Status done =
      as_checked(caller, checked, [&] { return os::rename_at(from->fd->get(), name, to->fd->get(), new_name, flags); });
  if (!done.ok()) return done;
  to->tree->note_change();
  if (from->tree != to->tree) from->tree->note_change();
  const bool is_same_file = moved.node != nullptr && moved.node == other.node;
  if (is_same_file) return done;  // two names of one file: nothing was moved
  if (is_exchange) {
    renamed(other, to->child(new_name), from->child(name));
  } else {
    lost_name(other, to->child(new_name));
  }
  renamed(moved, from->child(name), to->child(new_name));
  return done;
}

}  // namespace obfs
