#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backing.h"
#include "caller_identity.h"
#include "result.h"
#include "unique_fd.h"

namespace obfs {

class Tree;
using TreeRef = std::shared_ptr<Tree>;

/** The door through which a tree is seen. A directory has one dentry in the kernel, so each door needs node ids of its own. */
enum class Door : uint8_t { kSharedRoot, kTreeRoot };

/** As whom a tree's files are shown with --map-owner; without it all callers see one view. */
struct Viewer {
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  bool operator<(const Viewer& other) const { return uid < other.uid; }
};

/** What happened in one tree, for `status`. Counters of all its generations and views. */
struct TreeStatistics {
  std::atomic<uint64_t> generations = 0;
  std::atomic<uint64_t> operations = 0;
  std::atomic<uint64_t> errors = 0;  ///< other than for want of a name or an attribute
  std::atomic<int64_t> open_files = 0;
  std::atomic<int64_t> known_nodes = 0;
};

/**
 * One directory that the file system shows as a tree, and the current view of it at each door. Its descriptor pins the inode,
 * so (device, inode) names it for as long as it lives.
 */
class TreeDirectory : public std::enable_shared_from_this<TreeDirectory> {
 public:
  /** `root` is a descriptor of the directory. EOPNOTSUPP when its files cannot be known in the wanted way. */
  static Result<std::shared_ptr<TreeDirectory>> open(UniqueFd root, BackingKind kind);

  const UniqueFd& root() const { return root_; }
  Backing& backing() const { return *backing_; }
  dev_t device() const { return attr_.st_dev; }
  ino_t inode() const { return attr_.st_ino; }
  /** Whether its files lie on this machine's own disks. */
  bool is_local() const { return is_local_; }
  /** Owner of the directory itself: whom a tree's files belong to under --map-owner. */
  uid_t owner_uid() const { return attr_.st_uid; }
  gid_t owner_gid() const { return attr_.st_gid; }

  /**
   * The current view at a door. A new one is begun when the files were changed through another view since: its node ids are
   * new, so nothing that the kernel cached before can be seen again.
   */
  TreeRef view(Door door, Viewer viewer);

  /** Ends every current view: for what went around the mount. Open files keep theirs. */
  void start_new_generation();

  TreeStatistics statistics;

  /** Inode number to show for a file of this tree: files of mounts below the root must not collide with its own. */
  ino_t shown_inode(const struct stat& attr);

 private:
  friend class Tree;
  using ViewKey = std::pair<Door, Viewer>;

  UniqueFd root_;
  std::unique_ptr<Backing> backing_;
  struct stat attr_;
  bool is_local_ = false;
  std::atomic<int64_t> changes_ = 0;         ///< by all views, ever
  std::atomic<int64_t> unseen_writers_ = 0;  ///< through all views, now

  std::mutex mutex_;
  std::map<ViewKey, std::weak_ptr<Tree>> views_;  ///< guarded by mutex_; a view lives as long as its nodes do
  std::map<dev_t, ino_t> devices_;                ///< guarded by mutex_; devices other than the root's
};

/** One view of a tree directory in one generation. Every node belongs to exactly one. Immutable but for its counter. */
class Tree {
 public:
  Tree(std::shared_ptr<TreeDirectory> directory, Door door, Viewer viewer);

  const uint64_t id;  ///< never reused in this process
  const std::shared_ptr<TreeDirectory> directory;
  const Door door;
  const Viewer viewer;

  /** Notes a change made through this view, so that the directory's other views end at their next use. */
  void note_change();

  /** Somebody may write to a file through this view without us hearing of it, until `end_unseen_writes`. */
  void begin_unseen_writes();
  void end_unseen_writes();

  /** Whether the directory was changed through another view since this one began, or may be by now. */
  bool is_outdated() const;

  /** As whom a caller's operations run on the files: itself, or the tree's owner for the viewer of a mapped view. */
  Identity identity_of(const Caller& caller) const;

  /** Attributes as this view shows them. */
  void show(struct stat& attr) const;

  /** The ids to store where a caller names ids as this view shows them. */
  uid_t stored_uid(uid_t shown) const;
  gid_t stored_gid(gid_t shown) const;

 private:
  /** Never for root's trees: who acts as root could leave set-id programs of root. */
  bool is_mapped() const { return viewer.uid != static_cast<uid_t>(-1) && directory->owner_uid() != 0; }

  const int64_t changes_at_start_;
  std::atomic<int64_t> own_changes_ = 0;
  std::atomic<int64_t> own_unseen_writers_ = 0;
};

/**
 * Counts one request: made on the stack of the thread that answers it, told on the way which tree it is for and how it ended.
 * Not nested.
 */
class RequestCount {
 public:
  RequestCount() { current_ = this; }
  ~RequestCount() { current_ = nullptr; }
  RequestCount(const RequestCount&) = delete;
  RequestCount& operator=(const RequestCount&) = delete;

  /** The request at hand is for this tree; the first to be named counts. */
  static void is_for(const Tree& tree);
  /** The request at hand is answered with this errno (0: it succeeded). */
  static void ends_with(int error);

 private:
  static thread_local RequestCount* current_;
  std::shared_ptr<TreeDirectory> directory_;
};

}  // namespace obfs
