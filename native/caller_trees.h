#pragma once

#include <sys/types.h>

#include <ctime>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "path_watch.h"
#include "result.h"
#include "tree.h"

namespace obfs {

/** Where one scoreboard entry leads, or why it cannot be used. */
struct ScoreboardEntry {
  std::string name;     ///< a uid, or "default"
  std::string target;   ///< what the link says; empty where it is none
  std::string problem;  ///< for people; empty when the entry is usable
};

/** Where scoreboard entries may lead. */
struct EntryRules {
  std::string subdirectory;  ///< of an entry's directory; "" for the directory itself
  std::string prefix;        ///< what is mounted over: a tree may not lie in it, or serving it would wait for itself
};

/** Every entry of a scoreboard, as the file system judges it. */
Result<std::vector<ScoreboardEntry>> read_scoreboard(const std::string& scoreboard, const EntryRules& rules);

/**
 * Which tree each caller sees: reads the scoreboard, a root-owned directory of symbolic links `<uid> -> <directory>`.
 *
 * The link is looked at anew on every request, or known to be as it was because nothing on its way has changed, so rewriting it needs
 * no unmount. A changed link starts a new generation of the directory it leads to. It fails closed: a caller with an entry that cannot be used gets EACCES, never the covered directory.
 * All methods may be called from several threads at once, with the daemon's own identity.
 */
class CallerTrees {
 public:
  struct Options {
    std::string scoreboard;  ///< absolute path
    EntryRules rules;
    bool map_owner = false;
    BackingKind backing = BackingKind::kAuto;
  };

  CallerTrees(Options options, std::shared_ptr<TreeDirectory> covered);

  /** The tree that `caller` sees at the shared root. EACCES when its entry cannot be used. */
  Result<TreeRef> at_shared_root(const Caller& caller);

  /** The tree behind the hidden tree root of a uid. ENOENT when it has no entry, EACCES when that cannot be used. */
  Result<TreeRef> at_tree_root(uid_t uid, gid_t gid);

  /** Every entry that a caller has used, and the covered directory under the name "". */
  std::vector<std::pair<std::string, std::shared_ptr<TreeDirectory>>> used() const;

 private:
  /** What tells a link from the one that replaced it. */
  struct LinkIdentity {
    ino_t inode;
    timespec changed;
    std::string target;
    bool operator==(const LinkIdentity& other) const;
  };
  struct Entry {
    LinkIdentity link;
    std::shared_ptr<TreeDirectory> directory;  ///< null while the entry cannot be used
  };

  /** What is known of a caller without looking, as long as the watch tells of no change. */
  struct Settled {
    uint64_t epoch;                                       ///< of the watch, once all was watched
    std::string path;                                     ///< where the entry leads; "" for the covered directory
    std::shared_ptr<PathWatch::Watched> scoreboard, way;  ///< null where changes would go unnoticed
    std::shared_ptr<TreeDirectory> directory;             ///< null until it was looked at while being watched
  };

  Result<std::shared_ptr<TreeDirectory>> directory_for(uid_t uid);
  std::shared_ptr<TreeDirectory> settled(uid_t uid, uint64_t epoch) const;
  bool settle(uid_t uid, uint64_t epoch, const std::string& path, const std::shared_ptr<TreeDirectory>& directory);
  void watch(uid_t uid, const std::string& path);
  std::string path_of(const std::string& target) const;
  Result<std::string> entry_name(uid_t uid, struct stat* link) const;
  Result<std::shared_ptr<TreeDirectory>> directory_of(const std::string& name, const struct stat& link,
                                                      std::string& path);
  std::shared_ptr<TreeDirectory> known(const std::string& name, const LinkIdentity& link) const;
  Result<std::shared_ptr<TreeDirectory>> resolve(const std::string& name, const LinkIdentity& link);
  std::shared_ptr<TreeDirectory> shared_with_others(const std::shared_ptr<TreeDirectory>& fresh) const;
  Status check_scoreboard() const;

  const Options options_;
  const std::shared_ptr<TreeDirectory> covered_;
  PathWatch watch_;

  mutable std::shared_mutex mutex_;
  std::map<std::string, Entry> entries_;        ///< guarded by mutex_; entry name → what was last seen of it
  std::unordered_map<uid_t, Settled> settled_;  ///< guarded by mutex_
};

}  // namespace obfs
