#include "tree_walk.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "os_calls.h"

namespace obfs::tree_walk {

namespace {

/** Paths are opened in pieces below this: a tree may be deeper than one path can tell. */
constexpr size_t kPieceLengthMax = 4000;

}  // namespace

Result<UniqueFd> open_directory(int root, const std::string& path, int flags) {
  flags |= O_RDONLY | O_DIRECTORY;
  if (path.empty()) return os::open_at(root, ".", flags);
  UniqueFd reached;
  for (size_t begin = 0; begin < path.size();) {
    size_t end = path.size();
    if (end - begin > kPieceLengthMax) end = path.rfind('/', begin + kPieceLengthMax);
    const std::string piece = path.substr(begin, end - begin);
    auto next = os::open_beneath(reached.is_open() ? reached.get() : root, piece.c_str(), flags);
    if (!next.ok()) return next.failure();
    reached = std::move(*next);
    begin = end + 1;
  }
  return reached;
}

std::string path_below(const std::string& directory, const char* name) {
  return directory.empty() ? std::string(name) : directory + "/" + name;
}

Status for_each_entry(int directory, const std::function<Status(const dirent&)>& visit) {
  const int twin = fcntl(directory, F_DUPFD_CLOEXEC, 0);
  if (twin < 0) return last_errno();
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(twin), closedir);
  if (entries == nullptr) {
    const Errno failed = last_errno();
    ::close(twin);
    return failed;
  }
  for (errno = 0; const dirent* entry = readdir(entries.get()); errno = 0) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (const Status visited = visit(*entry); !visited.ok()) return visited;
  }
  return errno == 0 ? Status() : last_errno();
}

void WorkList::add(std::string directory) {
  const std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(directory));
  changed_.notify_one();
}

std::optional<std::string> WorkList::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !waiting_.empty() || under_way_ == 0 || is_given_up_; });
  if (waiting_.empty() || is_given_up_) return {};
  std::string taken = std::move(waiting_.back());
  waiting_.pop_back();
  ++under_way_;
  return taken;
}

void WorkList::mark_done() {
  const std::lock_guard lock(mutex_);
  if (--under_way_ == 0 && waiting_.empty()) changed_.notify_all();
}

void WorkList::give_up() {
  const std::lock_guard lock(mutex_);
  is_given_up_ = true;
  changed_.notify_all();
}

}  // namespace obfs::tree_walk
