#include "tree_clone.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "entry_clone.h"
#include "tree_walk.h"
#include "unique_fd.h"

namespace obfs {

namespace {

using entry_clone::CallFailure;
using entry_clone::CallStatus;
using entry_clone::DirectoryPair;
using tree_walk::open_directory;
using tree_walk::path_below;

constexpr unsigned kThreadsMin = 2;
/** More only wait for one another inside the file system. */
constexpr unsigned kThreadsMax = 8;
/** Further names of files that were met before. They are made last, when every first name is there. */
class HardLinks {
 public:
  struct Link {
    std::string first;
    std::string directory;
    std::string name;
  };

  /** Whether this name of a file with several is the first that was met; others are noted. */
  bool is_first(const struct stat& attr, const std::string& directory, const char* name) {
    const std::lock_guard lock(mutex_);
    const auto [known, is_new] = first_names_.try_emplace({attr.st_dev, attr.st_ino}, path_below(directory, name));
    if (!is_new) links_.push_back({known->second, directory, name});
    return is_new;
  }

  /** Only once all threads have ended. */
  const std::vector<Link>& links() const { return links_; }

 private:
  std::mutex mutex_;
  // Both under mutex_ while threads run:
  std::map<std::pair<dev_t, ino_t>, std::string> first_names_;
  std::vector<Link> links_;
};

class TreeClone {
 public:
  TreeClone(std::string source, std::string target, CloneControl& control)
      : source_(std::move(source)), target_(std::move(target)), control_(control) {}

  std::optional<CloneFailure> run() {
    if (open_roots()) {
      work_.add("");
      run_threads();
    }
    if (!failure_) make_links();
    return failure_;
  }

 private:
  struct Opened {
    UniqueFd from;
    UniqueFd to;
    struct stat attr;
    DirectoryPair pair() const { return {from.get(), to.get()}; }
  };

  bool open_roots() {
    from_root_ = UniqueFd(open(source_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!from_root_.is_open()) return fail(call_failed("open"), source_);
    to_root_ = UniqueFd(open(target_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!to_root_.is_open()) return fail(call_failed("open"), target_);
    const CallStatus failed = entry_clone::forget_inherited(to_root_.get());
    return failed ? fail(*failed, target_) : true;
  }

  void run_threads() {
    const unsigned count = std::clamp(std::thread::hardware_concurrency(), kThreadsMin, kThreadsMax);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
  }

  /** A thread's life. */
  void work() {
    try {
      if (const CallStatus failed = entry_clone::prepare_thread()) {
        fail(*failed, target_);
        return;
      }
      while (const auto directory = work_.take()) {
        clone_directory(*directory);
        work_.mark_done();
      }
    } catch (const std::exception&) {
      fail({ENOMEM, "clone"}, source_);
    }
  }

  void clone_directory(const std::string& path) {
    std::optional<Opened> opened = open_pair(path);
    if (!opened || !clone_entries(*opened, path)) return;
    if (const CallStatus failed = entry_clone::finish_directory(opened->pair(), opened->attr))
      fail(*failed, target_path(path));
  }

  std::optional<Opened> open_pair(const std::string& path) {
    auto from = open_directory(from_root_.get(), path);
    if (!from.ok()) return fail({from.error(), "open"}, source_path(path)), std::nullopt;
    auto to = open_directory(to_root_.get(), path);
    if (!to.ok()) return fail({to.error(), "open"}, target_path(path)), std::nullopt;
    Opened opened{std::move(*from), std::move(*to), {}};
    if (fstat(opened.from.get(), &opened.attr) != 0) return fail(call_failed("fstat"), source_path(path)), std::nullopt;
    return opened;
  }

  bool clone_entries(const Opened& opened, const std::string& path) {
    bool is_told = false;  // of the file that it was
    const Status listed = tree_walk::for_each_entry(opened.from.get(), [&](const dirent& entry) -> Status {
      is_told = true;
      if (control_.is_cancelled) return stop({ECANCELED, "clone"}, source_path(path));
      if (is_failed_) return Errno{ECANCELED};
      const CallStatus failed = clone_entry(opened.pair(), path, entry.d_name);
      if (failed) return stop(*failed, source_path(path_below(path, entry.d_name)));
      is_told = false;
      return Status();
    });
    return listed.ok() || is_told ? listed.ok() : fail({listed.error(), "readdir"}, source_path(path));
  }

  Status stop(CallFailure failure, std::string path) {
    fail(failure, std::move(path));
    return Errno{failure.error};
  }

  CallStatus clone_entry(DirectoryPair at, const std::string& directory, const char* name) {
    struct stat attr;
    if (fstatat(at.from, name, &attr, AT_SYMLINK_NOFOLLOW) != 0) return entry_clone::call_failed("fstatat");
    if (S_ISDIR(attr.st_mode)) {
      if (mkdirat(at.to, name, S_IRWXU) != 0) return entry_clone::call_failed("mkdir");
      work_.add(path_below(directory, name));
      return {};
    }
    if (attr.st_nlink > 1 && !links_.is_first(attr, directory, name)) return {};
    return entry_clone::clone_file(at, name, attr, {control_.is_copy, control_.is_cancelled});
  }

  void make_links() {
    std::set<std::string> changed;
    for (const HardLinks::Link& link : links_.links()) {
      if (!make_link(link)) return;
      changed.insert(link.directory);
    }
    for (const std::string& directory : changed) {
      const auto opened = open_pair(directory);
      if (!opened) return;
      const CallStatus failed = entry_clone::restore_times(opened->to.get(), opened->attr);
      if (failed) return void(fail(*failed, target_path(directory)));
    }
  }

  bool make_link(const HardLinks::Link& link) {
    const size_t slash = link.first.rfind('/');
    const bool is_at_top = slash == std::string::npos;
    const auto first = open_directory(to_root_.get(), is_at_top ? "" : link.first.substr(0, slash));
    const auto directory = open_directory(to_root_.get(), link.directory);
    const std::string path = target_path(path_below(link.directory, link.name.c_str()));
    if (!first.ok()) return fail({first.error(), "open"}, path);
    if (!directory.ok()) return fail({directory.error(), "open"}, path);
    const std::string first_name = is_at_top ? link.first : link.first.substr(slash + 1);
    const int linked = linkat(first->get(), first_name.c_str(), directory->get(), link.name.c_str(), 0);
    return linked == 0 || fail(call_failed("link"), path);
  }

  /** Ends the work of all threads; the first failure is the one that is told. Always false. */
  bool fail(CallFailure failure, std::string path) {
    {
      const std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = CloneFailure{failure.error, failure.syscall, std::move(path)};
    }
    is_failed_ = true;
    work_.give_up();
    return false;
  }

  static CallFailure call_failed(const char* syscall) { return entry_clone::call_failed(syscall); }
  std::string source_path(const std::string& path) const { return path.empty() ? source_ : source_ + "/" + path; }
  std::string target_path(const std::string& path) const { return path.empty() ? target_ : target_ + "/" + path; }

  const std::string source_;
  const std::string target_;
  CloneControl& control_;
  UniqueFd from_root_;
  UniqueFd to_root_;
  tree_walk::WorkList work_;
  HardLinks links_;
  std::atomic<bool> is_failed_ = false;
  std::mutex failure_mutex_;
  std::optional<CloneFailure> failure_;  // under failure_mutex_ while threads run
};

}  // namespace

std::optional<CloneFailure> clone_tree(const std::string& source, const std::string& target, CloneControl& control) {
  return TreeClone(source, target, control).run();
}

}  // namespace obfs
