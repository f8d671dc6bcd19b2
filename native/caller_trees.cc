#include "caller_trees.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <mutex>
#include <string_view>

#include "os_calls.h"

namespace obfs {

namespace {

#ifdef __APPLE__
constexpr uid_t kFirstOrdinaryUid = 500;
#else
constexpr uid_t kFirstOrdinaryUid = 1000;
#endif

constexpr const char* kDefaultEntry = "default";

/** Of more callers than a machine has, each request is looked at. */
constexpr size_t kMostSettled = 4096;

/** Why an entry cannot be used, for status; the errno that its caller gets is always EACCES. */
struct Problem {
  std::string text;
};

Result<std::string> read_link(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  if (length < 0) return last_errno();
  return std::string(target, static_cast<size_t>(length));
}

/** Opens `subdirectory` below an entry's directory; the build user owns what lies there, so no link is followed. */
UniqueFd open_subdirectory(UniqueFd directory, const std::string& subdirectory, Problem& problem) {
  size_t start = 0;
  while (start < subdirectory.size()) {
    const size_t end = std::min(subdirectory.find('/', start), subdirectory.size());
    const std::string component = subdirectory.substr(start, end - start);
    auto next = os::open_at(directory.get(), component.c_str(), os::kNameOnly | O_DIRECTORY);
    if (!next.ok()) {
      const bool is_missing = next.error() == ENOENT;
      problem.text =
          "its subdirectory \"" + subdirectory + "\" " + (is_missing ? "does not exist" : "is not a directory");
      return {};
    }
    directory = *std::move(next);
    start = end + 1;
  }
  return directory;
}

bool is_within(const std::string& path, const std::string& directory) {
  return !directory.empty() && path.compare(0, directory.size(), directory) == 0 &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

UniqueFd open_tree(const std::string& target, const EntryRules& rules, Problem& problem) {
  if (target.empty() || target[0] != '/') {
    problem.text = "the link is relative; it must name an absolute path";
    return {};
  }
  if (is_within(target, rules.prefix)) {
    problem.text = "the link leads into the prefix itself";
    return {};
  }
  auto directory = os::open_at(AT_FDCWD, target.c_str(), os::kNameOnly | O_DIRECTORY);
  if (!directory.ok()) {
    const std::string why = strerror(directory.error());
    problem.text = directory.error() == ENOENT ? "the link leads nowhere: no such directory"
                                               : "the link does not lead to a directory: " + why;
    return {};
  }
  return open_subdirectory(*std::move(directory), rules.subdirectory, problem);
}

bool is_trustworthy_link(const struct stat& link, Problem& problem) {
  if (!S_ISLNK(link.st_mode)) {
    problem.text = "the entry is not a symbolic link";
  } else if (link.st_uid != 0) {
    problem.text = "the link belongs to uid " + std::to_string(link.st_uid) + ", not to root";
  } else {
    return true;
  }
  return false;
}

ScoreboardEntry judge_entry(const std::string& scoreboard, const std::string& name, const EntryRules& rules) {
  ScoreboardEntry entry{name, "", ""};
  Problem problem;
  struct stat link;
  const std::string path = scoreboard + "/" + name;
  if (lstat(path.c_str(), &link) != 0) {
    problem.text = strerror(errno);
  } else if (is_trustworthy_link(link, problem)) {
    const auto target = read_link(path);
    entry.target = target.ok() ? *target : "";
    (void)open_tree(entry.target, rules, problem);
  }
  entry.problem = problem.text;
  return entry;
}

bool is_entry_name(std::string_view name) {
  return name == kDefaultEntry ||
         (!name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }));
}

}  // namespace

Result<std::vector<ScoreboardEntry>> read_scoreboard(const std::string& scoreboard, const EntryRules& rules) {
  DIR* const directory = opendir(scoreboard.c_str());
  if (directory == nullptr) return last_errno();
  std::vector<ScoreboardEntry> entries;
  while (const dirent* const found = readdir(directory)) {
    if (is_entry_name(found->d_name)) entries.push_back(judge_entry(scoreboard, found->d_name, rules));
  }
  closedir(directory);
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.name.size(), a.name) < std::pair(b.name.size(), b.name);
  });
  return entries;
}

bool CallerTrees::LinkIdentity::operator==(const LinkIdentity& other) const {
  return inode == other.inode && changed.tv_sec == other.changed.tv_sec && changed.tv_nsec == other.changed.tv_nsec &&
         target == other.target;
}

CallerTrees::CallerTrees(Options options, std::shared_ptr<TreeDirectory> covered)
    : options_(std::move(options)), covered_(std::move(covered)) {}

Result<TreeRef> CallerTrees::at_shared_root(const Caller& caller) {
  const auto directory = directory_for(caller.uid);
  if (!directory.ok()) return Errno{EACCES};
  const bool is_mapped = options_.map_owner && *directory != covered_;
  return (*directory)->view(Door::kSharedRoot, is_mapped ? Viewer{caller.uid, caller.gid} : Viewer{});
}

Result<std::shared_ptr<TreeDirectory>> CallerTrees::directory_for(uid_t uid) {
  const uint64_t epoch = watch_.epoch();
  if (auto directory = settled(uid, epoch)) return directory;
  struct stat link;
  std::string path;
  const auto name = entry_name(uid, &link);
  if (!name.ok() && name.error() != ENOENT) return name.failure();
  const auto directory = name.ok() ? directory_of(*name, link, path) : covered_;
  if (directory.ok() && !settle(uid, epoch, path, *directory)) watch(uid, path);
  return directory;
}

std::shared_ptr<TreeDirectory> CallerTrees::settled(uid_t uid, uint64_t epoch) const {
  const std::shared_lock lock(mutex_);
  const auto one = settled_.find(uid);
  return one != settled_.end() && one->second.epoch == epoch ? one->second.directory : nullptr;
}

/** What was looked at after `epoch` is settled if all of it was being watched by then. False where it is to be watched first. */
bool CallerTrees::settle(uid_t uid, uint64_t epoch, const std::string& path,
                         const std::shared_ptr<TreeDirectory>& directory) {
  const std::unique_lock lock(mutex_);
  const auto one = settled_.find(uid);
  if (one == settled_.end()) return settled_.size() >= kMostSettled;
  if (one->second.path != path) return false;
  const bool is_watched = one->second.scoreboard != nullptr;
  if (is_watched && one->second.epoch == epoch) one->second.directory = directory;
  return !is_watched || one->second.epoch == epoch;
}

void CallerTrees::watch(uid_t uid, const std::string& path) {
  Settled fresh{watch_.epoch(), path, nullptr, nullptr, nullptr};
  auto scoreboard = watch_.watch(options_.scoreboard, true);
  auto way = path.empty() ? scoreboard : watch_.watch(path, false);
  if (watch_.epoch() != fresh.epoch) return;
  if (scoreboard.ok() && way.ok()) {
    fresh.scoreboard = *std::move(scoreboard);
    fresh.way = *std::move(way);
  }
  const std::unique_lock lock(mutex_);
  std::swap(settled_[uid], fresh);
}

Result<TreeRef> CallerTrees::at_tree_root(uid_t uid, gid_t gid) {
  struct stat link;
  const auto name = entry_name(uid, &link);
  if (!name.ok()) return Errno{name.error() == ENOENT ? ENOENT : EACCES};
  std::string path;
  const auto directory = directory_of(*name, link, path);
  if (!directory.ok()) return Errno{EACCES};
  const Viewer viewer = options_.map_owner ? Viewer{uid, gid} : Viewer{};
  return (*directory)->view(Door::kTreeRoot, viewer);
}

std::vector<std::pair<std::string, std::shared_ptr<TreeDirectory>>> CallerTrees::used() const {
  std::vector<std::pair<std::string, std::shared_ptr<TreeDirectory>>> trees{{"", covered_}};
  const std::shared_lock lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    if (entry.directory != nullptr) trees.emplace_back(name, entry.directory);
  }
  return trees;
}

// ENOENT means "no entry", and that the scoreboard could tell: were it gone, a mapped caller would see the covered directory.
Result<std::string> CallerTrees::entry_name(uid_t uid, struct stat* link) const {
  std::string name = std::to_string(uid);
  if (lstat((options_.scoreboard + "/" + name).c_str(), link) == 0) return name;
  if (errno != ENOENT) return last_errno();
  if (uid >= kFirstOrdinaryUid) {
    if (lstat((options_.scoreboard + "/" + kDefaultEntry).c_str(), link) == 0) return std::string(kDefaultEntry);
    if (errno != ENOENT) return last_errno();
  }
  const Status intact = check_scoreboard();
  return intact.ok() ? Errno{ENOENT} : intact.failure();
}

Status CallerTrees::check_scoreboard() const {
  struct stat attr;
  if (lstat(options_.scoreboard.c_str(), &attr) != 0) return Errno{EACCES};
  const bool is_roots_own = S_ISDIR(attr.st_mode) && attr.st_uid == 0 && (attr.st_mode & (S_IWGRP | S_IWOTH)) == 0;
  return is_roots_own ? Status() : Status(Errno{EACCES});
}

Result<std::shared_ptr<TreeDirectory>> CallerTrees::directory_of(const std::string& name, const struct stat& link,
                                                                 std::string& path) {
  Problem problem;
  if (!is_trustworthy_link(link, problem)) return Errno{EACCES};
  auto target = read_link(options_.scoreboard + "/" + name);
  if (!target.ok()) return Errno{EACCES};
  path = path_of(*target);
  const LinkIdentity identity{link.st_ino, os::changed_at(link), *std::move(target)};
  if (auto directory = known(name, identity)) return directory;
  return resolve(name, identity);
}

/** What the entry led to before, if it still does: the link and the directory behind its path are both the same. */
std::shared_ptr<TreeDirectory> CallerTrees::known(const std::string& name, const LinkIdentity& link) const {
  std::shared_ptr<TreeDirectory> directory;
  {
    const std::shared_lock lock(mutex_);
    const auto entry = entries_.find(name);
    if (entry == entries_.end() || !(entry->second.link == link)) return nullptr;
    directory = entry->second.directory;
  }
  if (directory == nullptr) return nullptr;
  struct stat attr;
  if (lstat(path_of(link.target).c_str(), &attr) != 0) return nullptr;
  return attr.st_dev == directory->device() && attr.st_ino == directory->inode() ? directory : nullptr;
}

std::string CallerTrees::path_of(const std::string& target) const {
  return options_.rules.subdirectory.empty() ? target : target + "/" + options_.rules.subdirectory;
}

Result<std::shared_ptr<TreeDirectory>> CallerTrees::resolve(const std::string& name, const LinkIdentity& link) {
  Problem problem;
  UniqueFd root = open_tree(link.target, options_.rules, problem);
  std::shared_ptr<TreeDirectory> fresh;
  if (root.is_open()) {
    auto opened = TreeDirectory::open(std::move(root), options_.backing);
    if (opened.ok()) fresh = *std::move(opened);
  }
  const std::unique_lock lock(mutex_);
  auto [entry, is_first] = entries_.try_emplace(name, Entry{link, nullptr});
  const bool is_rewritten = !is_first && !(entry->second.link == link);
  if (fresh != nullptr) fresh = shared_with_others(fresh);
  if (fresh != nullptr && is_rewritten) fresh->start_new_generation();
  entry->second = Entry{link, fresh};
  if (fresh == nullptr) return Errno{EACCES};
  return fresh;
}

/** The one object for a directory that several entries lead to, so that they share its generation. Needs mutex_. */
std::shared_ptr<TreeDirectory> CallerTrees::shared_with_others(const std::shared_ptr<TreeDirectory>& fresh) const {
  for (const auto& [name, entry] : entries_) {
    if (entry.directory != nullptr && entry.directory->device() == fresh->device() &&
        entry.directory->inode() == fresh->inode()) {
      return entry.directory;
    }
  }
  return fresh;
}

}  // namespace obfs
