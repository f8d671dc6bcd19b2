#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

/**
 * POSIX tests as functions of a folder. The folder is empty and open to all (mode 1777 or 0777), the caller is root, and what a
 * test leaves is removed after it. Tests work directly in the folder where that matters: it may be the root of a mount.
 *
 * A test is one function that throws Failure; each runs in a process of its own, so it may change its identity, umask and
 * working directory, and leave descriptors open.
 */
namespace posix {

/** Uids without accounts, with a group each of the same number. */
constexpr uid_t kAnna = 7721;
constexpr uid_t kBert = 7722;
constexpr gid_t kShared = 7723;

class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] void fail(const char* file, int line, const std::string& what);
std::string error_name(int error);

template <typename Value>
Value succeed(Value value, const char* call, const char* file, int line) {
  if (value == static_cast<Value>(-1)) fail(file, line, std::string(call) + ": " + error_name(errno));
  return value;
}

template <typename Actual, typename Expected>
void check_equal(const Actual& actual, const Expected& expected, const char* what, const char* file, int line) {
  if (actual == expected) return;
  std::ostringstream text;
  text << what << " is " << actual << ", not " << expected;
  fail(file, line, text.str());
}

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) ::posix::fail(__FILE__, __LINE__, "not " #condition);   \
  } while (false)
#define CHECK_EQ(actual, expected) ::posix::check_equal((actual), (expected), #actual, __FILE__, __LINE__)
/** The value of a system call that must succeed. */
#define OK(call) ::posix::succeed((call), #call, __FILE__, __LINE__)
/** A system call that must fail with this errno. */
#define FAILS(call, error)                                                                                        \
  ::posix::check_equal(::posix::error_name((call) == -1 ? errno : 0), ::posix::error_name(error), #call, __FILE__, \
                       __LINE__)

/** An open descriptor; closed at the end of its scope. */
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  operator int() const { return fd_; }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

#define OPEN(...) ::posix::Fd(OK(open(__VA_ARGS__)))

void write_file(const std::string& path, const std::string& text, mode_t mode = 0644);
std::string read_file(const std::string& path);
std::string read_all(int fd);
void write_at(int fd, const std::string& text, off_t offset);
std::string read_at(int fd, size_t size, off_t offset);
struct stat stat_of(const std::string& path);
struct stat lstat_of(const std::string& path);
struct stat stat_of(int fd);
mode_t mode_of(const std::string& path);
/** The names in a directory but . and .., sorted. */
std::vector<std::string> names_in(const std::string& directory);
void remove_below(const std::string& directory);

/** Another process that runs `work`; `join` throws what it threw. Killed at the end of its scope if it still runs. */
class Child {
 public:
  explicit Child(const std::function<void()>& work);
  Child(Child&&) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();
  void join();
  void kill_now();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
  int failure_;
};

/** One process tells another that it has come so far. */
class Signal {
 public:
  Signal();
  void raise() const;
  void wait() const;

 private:
  int ends_[2];
};

/** Runs `work` in another process as this user, with these supplementary groups and no capabilities. */
void as_user(uid_t uid, const std::function<void()>& work, const std::vector<gid_t>& groups = {});
/** Runs `work(i)` in `count` processes at once. */
void at_once(int count, const std::function<void(int)>& work);

/** Takes a test into the suite. */
struct Registration {
  Registration(const char* name, void (*run)(const std::string&));
};

#define POSIX_TEST(id, name)                                       \
  static void id(const std::string& dir);                          \
  static const ::posix::Registration register_##id(name, id);      \
  static void id([[maybe_unused]] const std::string& dir)

}  // namespace posix
