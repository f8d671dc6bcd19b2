#include "suite.h"

#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>

namespace posix {

namespace {

/** Guards against hangs; no test takes a tenth of it. */
constexpr int kHangSeconds = 60;

/** What a child says when it failed, through a pipe; nothing when it did not. */
[[noreturn]] void run_and_exit(const std::function<void()>& work, int failure) {
  try {
    work();
  } catch (const std::exception& failed) {
    const std::string text = failed.what();
    if (write(failure, text.data(), text.size()) < 0) _exit(2);
    _exit(1);
  }
  _exit(0);
}

std::string how_it_ended(int status, const std::string& said) {
  if (!said.empty()) return said;
  if (WIFSIGNALED(status)) return std::string("killed by ") + strsignal(WTERMSIG(status));
  if (WEXITSTATUS(status) != 0) return "ended with code " + std::to_string(WEXITSTATUS(status));
  return "";
}

int remove_one(const char* path, const struct stat*, int, struct FTW* at) {
  return at->level == 0 ? 0 : remove(path);
}

}  // namespace

void fail(const char* file, int line, const std::string& what) {
  const char* const slash = strrchr(file, '/');
  throw Failure(std::string(slash == nullptr ? file : slash + 1) + ":" + std::to_string(line) + ": " + what);
}

std::string error_name(int error) {
  if (error == 0) return "no error";
  const char* const name = strerrorname_np(error);
  return name == nullptr ? std::to_string(error) : name;
}

void write_file(const std::string& path, const std::string& text, mode_t mode) {
  const Fd fd = OPEN(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, mode);
  write_at(fd, text, 0);
}

std::string read_file(const std::string& path) { return read_all(OPEN(path.c_str(), O_RDONLY)); }

std::string read_all(int fd) {
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t size = OK(read(fd, buffer, sizeof buffer));
    if (size == 0) return text;
    text.append(buffer, static_cast<size_t>(size));
  }
}

void write_at(int fd, const std::string& text, off_t offset) {
  CHECK_EQ(OK(pwrite(fd, text.data(), text.size(), offset)), static_cast<ssize_t>(text.size()));
}

std::string read_at(int fd, size_t size, off_t offset) {
  std::string text(size, '?');
  text.resize(static_cast<size_t>(OK(pread(fd, text.data(), size, offset))));
  return text;
}

struct stat stat_of(const std::string& path) {
  struct stat attr;
  if (stat(path.c_str(), &attr) != 0) fail(__FILE__, __LINE__, "stat " + path + ": " + error_name(errno));
  return attr;
}

struct stat lstat_of(const std::string& path) {
  struct stat attr;
  if (lstat(path.c_str(), &attr) != 0) fail(__FILE__, __LINE__, "lstat " + path + ": " + error_name(errno));
  return attr;
}

struct stat stat_of(int fd) {
  struct stat attr;
  OK(fstat(fd, &attr));
  return attr;
}

mode_t mode_of(const std::string& path) { return lstat_of(path).st_mode & 07777; }

std::vector<std::string> names_in(const std::string& directory) {
  DIR* const stream = opendir(directory.c_str());
  if (stream == nullptr) fail(__FILE__, __LINE__, "opendir " + directory + ": " + error_name(errno));
  std::vector<std::string> names;
  while (const dirent* const found = readdir(stream)) names.emplace_back(found->d_name);
  closedir(stream);
  names.erase(std::remove_if(names.begin(), names.end(), [](const auto& name) { return name == "." || name == ".."; }),
              names.end());
  std::sort(names.begin(), names.end());
  return names;
}

void remove_below(const std::string& directory) {
  OK(nftw(directory.c_str(), remove_one, 32, FTW_DEPTH | FTW_PHYS));
  CHECK_EQ(names_in(directory).size(), 0u);
}

Child::Child(const std::function<void()>& work) {
  int ends[2];
  OK(pipe2(ends, O_CLOEXEC));
  pid_ = OK(fork());
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(kHangSeconds);
    run_and_exit(work, ends[1]);
  }
  close(ends[1]);
  failure_ = ends[0];
}

Child::Child(Child&& other) noexcept : pid_(other.pid_), failure_(other.failure_) {
  other.pid_ = -1;
  other.failure_ = -1;
}

Child::~Child() {
  if (pid_ > 0) kill_now();
  if (failure_ >= 0) close(failure_);
}

void Child::join() {
  int status;
  OK(waitpid(pid_, &status, 0));
  pid_ = -1;
  // Not read to its end: a grandchild may hold the other end.
  char said[4096];
  pollfd ready = {failure_, POLLIN, 0};
  const ssize_t size = poll(&ready, 1, 0) == 1 ? read(failure_, said, sizeof said) : 0;
  const std::string failure = how_it_ended(status, std::string(said, size > 0 ? static_cast<size_t>(size) : 0));
  if (!failure.empty()) throw Failure(failure);
}

void Child::kill_now() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

Signal::Signal() { OK(pipe(ends_)); }

void Signal::raise() const { OK(write(ends_[1], "", 1)); }

void Signal::wait() const {
  char byte;
  CHECK_EQ(OK(read(ends_[0], &byte, 1)), 1);
}

void as_user(uid_t uid, const std::function<void()>& work, const std::vector<gid_t>& groups) {
  Child user([&] {
    OK(setgroups(groups.size(), groups.data()));
    OK(setresgid(uid, uid, uid));
    OK(setresuid(uid, uid, uid));
    work();
  });
  user.join();
}

void at_once(int count, const std::function<void(int)>& work) {
  const Signal start;
  std::vector<Child> children;
  for (int i = 0; i < count; ++i) {
    children.emplace_back([&, i] {
      start.wait();
      work(i);
    });
  }
  for (int i = 0; i < count; ++i) start.raise();
  for (Child& child : children) child.join();
}

}  // namespace posix
