#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "os_calls.h"
#include "redirect_fs.h"

namespace obfs {

namespace {

// Everything that changes a tree goes through its view or begins a new one, so what the kernel knows stays true.
constexpr double kLongTimeout = 86400;

constexpr const char* kAccessList = "system.posix_acl_access";

bool is_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos;
}

timespec now() {
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

struct stat virtual_directory(ino_t inode, mode_t mode, timespec time) {
  struct stat attr = {};
  attr.st_ino = inode;
  attr.st_mode = S_IFDIR | mode;
  attr.st_nlink = 2;
  attr.st_blksize = 4096;
  os::set_all_times(attr, time);
  return attr;
}

/** Reads "<uid>.<gid>.<anything>"; the last part makes each door's name its own. */
bool parse_door(const char* name, uid_t& uid, gid_t& gid) {
  char* end = nullptr;
  if (*name < '0' || *name > '9') return false;
  uid = static_cast<uid_t>(strtoul(name, &end, 10));
  if (*end != '.' || end[1] < '0' || end[1] > '9') return false;
  gid = static_cast<gid_t>(strtoul(end + 1, &end, 10));
  return *end == '.' && end[1] != '\0';
}

}  // namespace

RedirectFs::RedirectFs(Options options, std::shared_ptr<TreeDirectory> covered)
    : options_(std::move(options)),
      inodes_({kFirstNodeId, options_.cached_descriptors, options_.pinned_descriptors}),
      trees_(options_.trees, std::move(covered)),
      started_(now()) {}

Result<RedirectFs::Target> RedirectFs::target(const Caller& caller, NodeId id) {
  if (id == kRootId) {
    auto tree = trees_.at_shared_root(caller);
    if (!tree.ok()) return tree.failure();
    // Shares the directory's descriptor: the tree it belongs to keeps it open.
    RequestCount::is_for(**tree);
    const auto directory = (*tree)->directory;
    return Target{*tree, FdRef(directory, &directory->root()), nullptr};
  }
  const NodeRef node = inodes_.find(id);
  if (node == nullptr) return Errno{ESTALE};
  RequestCount::is_for(*node->tree);
  auto fd = inodes_.descriptor(*node);
  if (!fd.ok()) return fd.failure();
  return Target{node->tree, *std::move(fd), node};
}

Result<RedirectFs::Target> RedirectFs::parent_of(const Caller& caller, NodeId parent, const char* name) {
  if (!is_name(name)) return Errno{EINVAL};
  if (parent == kDoorsId) return Errno{EACCES};
  if (parent == kRootId && name == options_.doors_name) return Errno{EACCES};
  return target(caller, parent);
}

// The owner's rights are the owner's alone. For others a group entry may grant less than they have: by the mode, or by an
// access control list, of which the mode tells nothing.
bool RedirectFs::groups_may_take(const Target& at, const Identity& identity) {
  if (!at.is_shared_root()) return false;
  struct stat attr;
  if (fstat(at.fd->get(), &attr) != 0) return true;
  if (identity.uid == 0 || identity.uid == attr.st_uid) return false;
  const mode_t group = (attr.st_mode >> 3) & 7;
  const mode_t others = attr.st_mode & 7;
  return (others & ~group) != 0 || os::get_xattr(at.fd->get(), kAccessList, 0).ok();
}

bool RedirectFs::is_searching_owner(const Target& at, const Identity& identity) {
  struct stat attr;
  if (fstat(at.fd->get(), &attr) != 0) return false;
  return identity.uid == attr.st_uid && (attr.st_mode & S_IXUSR) != 0;
}

bool RedirectFs::is_met_at_every_walk(const Target& parent) const {
  return parent.is_shared_root() || !options_.cache_names;
}

double RedirectFs::entry_timeout(const Target& parent) const { return is_met_at_every_walk(parent) ? 0 : kLongTimeout; }

Entry RedirectFs::missing_name(const Target& parent) const { return Entry{0, {}, 0, entry_timeout(parent)}; }

Result<Entry> RedirectFs::lookup(const Caller& caller, NodeId parent, const char* name) {
  if (!is_name(name)) return Errno{EINVAL};
  if (parent == kDoorsId) return look_up_door(caller, name);
  if (parent == kRootId && name == options_.doors_name) {
    const Attributes doors = doors_attributes();
    return Entry{kDoorsId, doors.attr, doors.timeout, kLongTimeout};
  }
  const auto at = target(caller, parent);
  if (!at.ok()) return at.failure();
  return entry_of_name(*at, name, caller);
}

Result<Entry> RedirectFs::entry_of_name(const Target& parent, const char* name, const Caller& caller) {
  if (is_met_at_every_walk(parent)) {
    const auto known = as_searcher(caller, parent, [&] { return known_entry(parent, name); });
    if (!known.ok()) return known.failure();
    if (known->has_value()) return **known;
  }
  Backing& backing = parent.tree->directory->backing();
  auto found = as_searcher(caller, parent, [&] { return backing.look_up(parent.fd->get(), name); });
  if (found.ok()) return enter(parent, name, *std::move(found));
  if (found.error() == ENOENT && !is_met_at_every_walk(parent)) return missing_name(parent);
  return found.failure();
}

Result<std::optional<Entry>> RedirectFs::known_entry(const Target& parent, const char* name) {
  Backing& backing = parent.tree->directory->backing();
  // With names it takes one call to find a file anew; what has a descriptor each is asked by it anyway.
  if (backing.memory() != NodeMemory::kNothing) return std::optional<Entry>();
  const auto key = backing.key_of(parent.fd->get(), name);
  if (!key.ok()) return key.failure();
  FdRef fd;
  const NodeRef node = inodes_.acquire_open(*parent.tree, *key, fd);
  if (node == nullptr) return std::optional<Entry>();
  Entry entry{node->id, {}, kLongTimeout, entry_timeout(parent)};
  if (fstat(fd->get(), &entry.attr) != 0) {
    const Errno failed = last_errno();
    forget(node->id, 1);
    return failed;
  }
  parent.tree->show(entry.attr);
  return std::optional<Entry>(entry);
}

Result<Entry> RedirectFs::enter(const Target& parent, const char* name, FoundFile found) {
  struct stat attr = found.attr;
  const auto node = inodes_.acquire(parent.tree, std::move(found), parent.child(name), is_met_at_every_walk(parent));
  if (!node.ok()) return node.failure();
  parent.tree->show(attr);
  return Entry{(*node)->id, attr, kLongTimeout, entry_timeout(parent)};
}

Result<Entry> RedirectFs::look_up_door(const Caller& caller, const char* name) {
  // The kernel lets only root below the hidden directory (mode 0700); a process with capabilities alone is refused here.
  if (caller.uid != 0) return Errno{EACCES};
  uid_t uid;
  gid_t gid;
  if (!parse_door(name, uid, gid)) return Errno{ENOENT};
  const auto tree = trees_.at_tree_root(uid, gid);
  if (!tree.ok()) return tree.failure();
  auto root = os::open_at((*tree)->directory->root().get(), ".", os::kNameOnly | O_DIRECTORY);
  if (!root.ok()) return root.failure();
  auto found = (*tree)->directory->backing().identify(*std::move(root));
  if (!found.ok()) return found.failure();
  auto entry = enter(Target{*tree, nullptr, nullptr}, "", *std::move(found));
  if (entry.ok()) entry->entry_timeout = kLongTimeout;
  return entry;
}

void RedirectFs::forget(NodeId id, uint64_t count) { inodes_.forget(id, count); }

Attributes RedirectFs::shared_root_attributes() const {
  Attributes root{virtual_directory(kRootId, os::kOpenToAll, started_), kLongTimeout};
  root.attr.st_gid = os::kGroupOfNobody;
  return root;
}

Attributes RedirectFs::doors_attributes() { return Attributes{virtual_directory(kDoorsId, 0700, {}), kLongTimeout}; }

Result<Attributes> RedirectFs::getattr(const Caller& caller, NodeId id, const FileHandle* handle) {
  if (id == kRootId) return shared_root_attributes();
  if (id == kDoorsId) return doors_attributes();
  Attributes answer{{}, kLongTimeout};
  if (handle != nullptr) {
    if (fstat(handle->fd->get(), &answer.attr) != 0) return last_errno();
    handle->tree->show(answer.attr);
    return answer;
  }
  const auto file = target(caller, id);
  if (!file.ok()) return file.failure();
  if (fstat(file->fd->get(), &answer.attr) != 0) return last_errno();
  file->tree->show(answer.attr);
  return answer;
}

Result<std::string> RedirectFs::readlink(NodeId id) {
  const auto link = target(Caller{0, 0, 0}, id);
  if (!link.ok()) return link.failure();
  return os::read_link(link->fd->get());
}

// With default_permissions the kernel asks only about the shared root, if at all.
Status RedirectFs::access(const Caller& caller, NodeId id, int mask) {
  if (id != kRootId) return Status();
  const auto root = target(caller, id);
  if (!root.ok()) return root.failure();
  return as_caller(caller, *root, [&] { return status_of(faccessat(root->fd->get(), ".", mask, AT_EACCESS)); });
}

Result<struct statvfs> RedirectFs::statfs(const Caller& caller, NodeId id) {
  const auto file = target(caller, id == kDoorsId ? kRootId : id);
  if (!file.ok()) return file.failure();
  struct statvfs answer;
  if (fstatvfs(file->fd->get(), &answer) != 0) return last_errno();
  return answer;
}

}  // namespace obfs
