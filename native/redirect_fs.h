#pragma once

#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "caller_identity.h"
#include "caller_trees.h"
#include "inode_table.h"
#include "result.h"

/**
 * The redirecting file system, apart from libfuse: one method per operation, called by any number of threads at once with the
 * daemon's own identity.
 *
 * Node ids. kRootId is the shared root: the one node that means another directory to each caller. kDoorsId is a hidden directory
 * below it, for root only, whose children are the trees' own roots ("tree roots"). Any other node belongs to exactly one tree,
 * whoever asks.
 *
 * Permissions. The kernel checks them (default_permissions) from the attributes answered here. It cannot do so at the shared
 * root, whose attributes are the same for all, so what has the shared root as its parent or target runs with the caller's
 * identity and the backing file system checks. Creations run with the caller's identity everywhere: that gives files their owner.
 *
 * Locks, in this order, none held while a reply is sent or a system call may block on another's: CallerTrees, TreeDirectory,
 * InodeTable, DescriptorCache, Backing. A DirectoryHandle's lock is taken before all of them.
 */
namespace obfs {

constexpr NodeId kRootId = 1;
constexpr NodeId kDoorsId = 2;
constexpr NodeId kFirstNodeId = 16;

struct Entry {
  NodeId id;  ///< 0: there is no such name, and the kernel may remember that
  struct stat attr;
  double attr_timeout;
  double entry_timeout;
};

struct Attributes {
  struct stat attr;
  double timeout;
};

/** What SETATTR changes; times may be UTIME_NOW in tv_nsec. */
struct AttributeChange {
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<off_t> size;
  std::optional<timespec> atime;
  std::optional<timespec> mtime;
  bool clears_set_ids = false;  ///< along with a new size
};

/** An open file: what the kernel's file handle points to. Who only reads shares the descriptor with others, and its position. */
class FileHandle {
 public:
  FileHandle(FdRef opened, NodeRef of_node) : fd(std::move(opened)), node(std::move(of_node)), tree(node->tree) {
    ++tree->directory->statistics.open_files;
  }
  ~FileHandle() { --tree->directory->statistics.open_files; }
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;

  const FdRef fd;
  const NodeRef node;
  const TreeRef& tree;
};

/** An open directory, read sequentially; its lock serialises readers of one handle. */
class DirectoryHandle {
 public:
  DirectoryHandle(DIR* opened, TreeRef in_tree, NodeRef of_node, uid_t by)
      : tree(std::move(in_tree)), node(std::move(of_node)), opener(by), stream(opened) {}
  ~DirectoryHandle() {
    if (stream != nullptr) closedir(stream);
  }
  DirectoryHandle(const DirectoryHandle&) = delete;
  DirectoryHandle& operator=(const DirectoryHandle&) = delete;

  /** The hidden directory's handle, which lists nothing. */
  bool is_empty() const { return tree == nullptr; }

  const TreeRef tree;  ///< the caller's, at the time it was opened; null for the hidden directory
  const NodeRef node;  ///< null at the shared root
  const uid_t opener;
  std::mutex mutex;
  DIR* stream;       ///< guarded by mutex; opened when it is first read, for the kernel may know the names already
  off_t offset = 0;  ///< where the stream stands; guarded by mutex
};

struct CreatedFile {
  Entry entry;
  std::unique_ptr<FileHandle> handle;
};

/** Takes one directory entry; false when the reply is full and it did not go in. `entry.id` is 0 for a name without a lookup. */
using DirectorySink = std::function<bool(const char* name, off_t next_offset, const Entry& entry)>;

class RedirectFs {
 public:
  struct Options {
    CallerTrees::Options trees;
    std::string doors_name;             ///< unguessable name of the hidden directory below the shared root
    bool cache_names = true;            ///< --cache=auto; false sends every path component to the daemon, as macOS does
    size_t cached_descriptors = 4096;   ///< open at once for nodes not in use
    size_t pinned_descriptors = 16384;  ///< of the backing that needs one for every node
  };

  RedirectFs(Options options, std::shared_ptr<TreeDirectory> covered);

  // redirect_fs_lookup.cc
  Result<Entry> lookup(const Caller& caller, NodeId parent, const char* name);
  void forget(NodeId id, uint64_t count);
  Result<Attributes> getattr(const Caller& caller, NodeId id, const FileHandle* handle);
  Result<std::string> readlink(NodeId id);
  Status access(const Caller& caller, NodeId id, int mask);
  Result<struct statvfs> statfs(const Caller& caller, NodeId id);

  // redirect_fs_dirs.cc
  /** Whether the kernel may keep what it reads from the handle for others who open the directory. */
  bool is_listing_cacheable(const DirectoryHandle& handle) const {
    return options_.cache_names && handle.node != nullptr;
  }
  Result<std::unique_ptr<DirectoryHandle>> opendir(const Caller& caller, NodeId id);
  /** `with_lookups`: entries carry a node each, and a kernel reference to it for those that the sink took. */
  Status readdir(const Caller& caller, DirectoryHandle& handle, off_t offset, bool with_lookups,
                 const DirectorySink& sink);
  Status fsyncdir(DirectoryHandle& handle, bool data_only);

  // redirect_fs_files.cc
  Result<std::unique_ptr<FileHandle>> open(NodeId id, int flags);
  Result<CreatedFile> create(const Caller& caller, NodeId parent, const char* name, mode_t mode, int flags);
  /** To be called after data was written to a file, by whatever means. */
  void wrote(const FileHandle& file);
  /**
   * What the kernel does to a file before whoever may not set these bits writes to it. Answers whether there were any; after a failure
   * nothing may be written.
   */
  Result<bool> clear_set_ids(const FileHandle& file);
  Status fallocate(const FileHandle& file, int mode, off_t offset, off_t length);
  Result<std::string> getxattr(const Caller& caller, NodeId id, const char* name, size_t size);
  Result<std::string> listxattr(const Caller& caller, NodeId id, size_t size);
  Status setxattr(const Caller& caller, NodeId id, const char* name, const char* value, size_t size, int flags);
  Status removexattr(const Caller& caller, NodeId id, const char* name);

  // redirect_fs_changes.cc
  Result<Attributes> setattr(const Caller& caller, NodeId id, const AttributeChange& change, const FileHandle* handle);
  Result<Entry> mknod(const Caller& caller, NodeId parent, const char* name, mode_t mode, dev_t device);
  Result<Entry> mkdir(const Caller& caller, NodeId parent, const char* name, mode_t mode);
  Result<Entry> symlink(const Caller& caller, NodeId parent, const char* name, const char* target);
  Result<Entry> link(const Caller& caller, NodeId id, NodeId new_parent, const char* new_name);
  Status unlink(const Caller& caller, NodeId parent, const char* name);
  Status rmdir(const Caller& caller, NodeId parent, const char* name);
  Status rename(const Caller& caller, NodeId parent, const char* name, NodeId new_parent, const char* new_name,
                unsigned flags);

  bool caches_names() const { return options_.cache_names; }
  size_t known_nodes() const { return inodes_.size(); }
  const CallerTrees& trees() const { return trees_; }

 private:
  /** A file as one request sees it. */
  struct Target {
    TreeRef tree;
    FdRef fd;
    NodeRef node;  ///< null at the shared root
    bool is_shared_root() const { return node == nullptr; }
    /** The name of a child, as the table of nodes remembers it. */
    NodeName child(const char* name) const { return NodeName{node, name}; }
  };

  /** The directory or file that a request names; at the shared root, the caller's own. */
  Result<Target> target(const Caller& caller, NodeId id);
  /** As `target`, for the parent of `name`; refuses names that are none. */
  Result<Target> parent_of(const Caller& caller, NodeId parent, const char* name);

  /** Runs `operation` with the caller's identity. */
  template <typename Operation>
  auto as_caller(const Caller& caller, const Target& at, Operation operation) {
    const Identity identity = at.tree->identity_of(caller);
    return run_as(identity, groups_may_take(at, identity), operation);
  }
  /** Runs `operation` with the caller's identity where the kernel could not check permissions, else as the daemon. */
  template <typename Operation>
  auto as_checked(const Caller& caller, const Target& at, Operation operation) {
    return at.is_shared_root() ? as_caller(caller, at, operation) : operation();
  }
  /** Runs a lookup in a directory, which at the shared root only those may do whom its backing lets search it. */
  template <typename LookUp>
  auto as_searcher(const Caller& caller, const Target& at, LookUp look_up) {
    if (!at.is_shared_root()) return look_up();
    if (is_searching_owner(at, at.tree->identity_of(caller))) {
      auto found = look_up();
      if (found.error() != EACCES) return found;  // the daemon's own rights end at another machine's disk
    }
    return as_caller(caller, at, look_up);
  }
  /** Whether the owner's bits alone decide, and allow it: no group and no access control list has a say then. */
  static bool is_searching_owner(const Target& at, const Identity& identity);
  /** Whether a supplementary group may take a right away at the shared root, which a try without groups would grant. */
  static bool groups_may_take(const Target& at, const Identity& identity);

  Status open_stream(DirectoryHandle& handle);
  Status list(DirectoryHandle& handle, off_t offset, bool with_lookups, const DirectorySink& sink);
  Result<Entry> entry_of_name(const Target& parent, const char* name, const Caller& caller);
  /** The same of what was made there just now; ESTALE when it is there no more, or something of another kind is. */
  Result<Entry> entry_of_made(const Target& parent, const char* name, const Caller& caller, mode_t kind);
  /** The entry of a file that is known and open already, with a kernel reference more; nothing when it is not. */
  Result<std::optional<Entry>> known_entry(const Target& parent, const char* name);
  /** Makes a file that was found under `name` known to the kernel. */
  Result<Entry> enter(const Target& parent, const char* name, FoundFile found);
  Entry missing_name(const Target& parent) const;
  Result<Entry> look_up_door(const Caller& caller, const char* name);
  Attributes shared_root_attributes() const;
  static Attributes doors_attributes();
  /** Whether the kernel asks for a directory's names anew each time. */
  bool is_met_at_every_walk(const Target& parent) const;
  double entry_timeout(const Target& parent) const;

  Status remove(const Caller& caller, NodeId parent, const char* name, int flags);
  /** A file that is about to lose a name, if the kernel knows it. */
  struct Victim {
    NodeRef node;
    FdRef fd;
  };
  Victim victim(const Target& parent, const char* name);
  void lost_name(const Victim& victim, const NodeName& name);
  void renamed(const Victim& moved, const NodeName& from, const NodeName& to);
  template <typename Make>
  Result<Entry> make(const Caller& caller, NodeId parent, const char* name, mode_t kind, Make make_child);
  Status apply(const Target& file, NodeId id, const AttributeChange& change, const FileHandle* handle);

  const Options options_;
  InodeTable inodes_;
  CallerTrees trees_;
  const timespec started_;
};

}  // namespace obfs
