#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "os_calls.h"
#include "path_watch.h"

namespace obfs {

namespace {

constexpr uint32_t kNameGone = IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE;
constexpr uint32_t kAnyEntry = IN_CREATE | IN_ATTRIB;
/** What is told of a directory itself, and of the queue. */
constexpr uint32_t kWatchLost = IN_IGNORED | IN_Q_OVERFLOW | IN_UNMOUNT;

/** The names of an absolute path; none where it has a "." or ".." in it, which lead another way. */
std::vector<std::string> names_of(std::string_view path) {
  std::vector<std::string> names;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view name = path.substr(0, end);
    if (name == "." || name == "..") return {};
    if (!name.empty()) names.emplace_back(name);
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return names;
}

}  // namespace

PathWatch::PathWatch() : events_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}

PathWatch::Watched::~Watched() {
  for (const Name& one : names_) by_.remove(one.directory, one.name);
}

Result<std::shared_ptr<PathWatch::Watched>> PathWatch::watch(const std::string& path, bool entries) {
  const std::vector<std::string> names = names_of(path);
  if (!events_.is_open() || names.empty() || path[0] != '/') return Errno{EOPNOTSUPP};
  auto watched = std::make_shared<Watched>(*this);
  auto directory = os::open_at(AT_FDCWD, "/", os::kNameOnly | O_DIRECTORY);
  for (const std::string& name : names) {
    if (!directory.ok()) return directory.failure();
    if (const Status added = add(*watched, directory->get(), name); !added.ok()) return added.failure();
    directory = os::open_at(directory->get(), name.c_str(), os::kNameOnly | O_DIRECTORY);
  }
  if (!directory.ok()) return directory.failure();
  if (entries) {
    if (const Status added = add(*watched, directory->get(), ""); !added.ok()) return added.failure();
  }
  return watched;
}

Status PathWatch::add(Watched& watched, int directory, const std::string& name) {
  if (!os::is_local(directory)) return Errno{EOPNOTSUPP};
  const uint32_t what = kNameGone | (name.empty() ? kAnyEntry : 0);
  const std::string path = "/proc/self/fd/" + std::to_string(directory);
  const std::lock_guard lock(mutex_);
  const int id = inotify_add_watch(events_.get(), path.c_str(), what | IN_MASK_ADD | IN_ONLYDIR);
  if (id < 0) return last_errno();
  Directory& known = directories_[id];
  if (name.empty()) {
    ++known.all;
  } else {
    known.names.insert(name);
  }
  watched.names_.push_back({id, name});
  return Status();
}

void PathWatch::remove(int directory, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto known = directories_.find(directory);
  if (known == directories_.end()) return;
  if (name.empty()) {
    --known->second.all;
  } else if (const auto one = known->second.names.find(name); one != known->second.names.end()) {
    known->second.names.erase(one);
  }
  if (known->second.all > 0 || !known->second.names.empty()) return;
  directories_.erase(known);
  inotify_rm_watch(events_.get(), directory);
}

// The kernel queues an event before the system call that caused it returns. Whoever finds none left must not overtake the one
// who has taken them and not yet told.
uint64_t PathWatch::epoch() {
  if (has_events() || is_draining_) drain();
  return epoch_;
}

bool PathWatch::has_events() const {
  int size = 0;
  return ioctl(events_.get(), FIONREAD, &size) == 0 && size > 0;
}

void PathWatch::drain() {
  alignas(inotify_event) char buffer[4096];
  const std::lock_guard lock(mutex_);
  is_draining_ = true;
  for (ssize_t size; (size = read(events_.get(), buffer, sizeof buffer)) > 0;) {
    for (const char* at = buffer; at < buffer + size;) {
      const auto& event = *reinterpret_cast<const inotify_event*>(at);
      note(event.wd, event.mask, event.len > 0 ? event.name : "");
      at += sizeof event + event.len;
    }
  }
  is_draining_ = false;
}

// Needs mutex_. A directory that nobody watches any more may still have events in the queue.
void PathWatch::note(int directory, uint32_t what, const std::string& name) {
  if ((what & IN_Q_OVERFLOW) != 0) ++epoch_;
  const auto known = directories_.find(directory);
  if (known == directories_.end()) return;
  const Directory& watched = known->second;
  if ((what & kWatchLost) != 0 || watched.all > 0 || watched.names.count(name) > 0) ++epoch_;
}

}  // namespace obfs
