// A caller of the benchmark: does one workload below a directory and times it inside, so that its own start is not measured.
//   client WORKLOAD ROOT COUNT [ARGUMENT]...
//   client make DIRECTORY DIRECTORIES FILES BYTES   makes files for the others, in files/d0/f0…
// For each figure it warms up, prints `ready FIGURE`, waits for a line on standard input, and prints `took FIGURE OPERATIONS NS`.
// When standard input ends instead it tidies up and leaves. A failed system call ends it with status 1 and one line.

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Words = std::vector<std::string>;

constexpr size_t kSmallFile = 4096;
constexpr size_t kChunk = size_t{1} << 20;

/** The harness went away or was stopped. */
struct Ended {};

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what + ": " + strerror(errno)); }

int must(int result, const std::string& what) {
  if (result == -1) fail(what);
  return result;
}

class File {
 public:
  File(const std::string& path, int flags, mode_t mode = 0) : fd_(must(open(path.c_str(), flags, mode), path)) {}
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

uint64_t now_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

/** One figure: waits for leave to begin, runs `work`, which answers how many operations it did, and tells what it took. */
template <typename Work>
void measure(const char* figure, Work work) {
  std::cout << "ready " << figure << std::endl;
  std::string go;
  if (!std::getline(std::cin, go)) throw Ended();
  const uint64_t begin = now_ns();
  const uint64_t operations = work();
  const uint64_t took = now_ns() - begin;
  std::cout << "took " << figure << ' ' << operations << ' ' << took << std::endl;
}

std::string numbered(const std::string& base, uint64_t number) { return base + std::to_string(number); }

std::vector<std::string> names_in(const std::string& directory) {
  DIR* const stream = opendir(directory.c_str());
  if (stream == nullptr) fail(directory);
  Words names;
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  closedir(stream);
  return names;
}

/** Every file two directories below `top`. */
Words known_paths(const std::string& top) {
  Words paths;
  for (const std::string& directory : names_in(top)) {
    for (const std::string& name : names_in(top + '/' + directory)) paths.push_back(top + '/' + directory + '/' + name);
  }
  return paths;
}

/** Calls `operation` on each path in turn until it has been called `count` times. */
template <typename Operation>
uint64_t cycle(const Words& paths, uint64_t count, Operation operation) {
  for (uint64_t done = 0; done < count;) {
    for (size_t i = 0; i < paths.size() && done < count; ++i, ++done) operation(paths[i]);
  }
  return count;
}

template <typename Operation>
void warm_then_measure(const char* figure, const Words& paths, uint64_t count, Operation operation) {
  cycle(paths, paths.size(), operation);
  measure(figure, [&] { return cycle(paths, count, operation); });
}

void stat_one(const std::string& path) {
  struct stat attributes;
  must(stat(path.c_str(), &attributes), path);
}

void stat_missing(const std::string& path) {
  struct stat attributes;
  if (stat(path.c_str(), &attributes) == 0) throw std::runtime_error(path + ": exists");
  if (errno != ENOENT) fail(path);
}

void read_one(const std::string& path) {
  char buffer[kSmallFile];
  const File file(path, O_RDONLY | O_CLOEXEC);
  if (read(file.fd(), buffer, sizeof buffer) != static_cast<ssize_t>(sizeof buffer)) fail(path);
}

void create_one(const std::string& path) {
  static const char content[kSmallFile] = {};
  const File file(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (write(file.fd(), content, sizeof content) != static_cast<ssize_t>(sizeof content)) fail(path);
}

void run_stat(const std::string& root, uint64_t count) {
  warm_then_measure("stat", known_paths(root + "/known"), count, stat_one);
}

void run_lookup(const std::string& root, uint64_t count) { warm_then_measure("lookup", {root + "/top"}, count, stat_one); }

void run_open(const std::string& root, uint64_t count) {
  warm_then_measure("open", known_paths(root + "/known"), count, read_one);
}

void run_missing(const std::string& root, uint64_t count) {
  Words paths = known_paths(root + "/known");
  for (std::string& path : paths) path += ".missing";
  warm_then_measure("missing", paths, count, stat_missing);
}

void run_links(const std::string& root, uint64_t count) {
  Words paths;
  for (const std::string& name : names_in(root + "/bin")) paths.push_back(root + "/bin/" + name);
  warm_then_measure("links", paths, count, stat_one);
}

/** A directory of this process's own; made and taken away through the contender. */
class WorkDirectory {
 public:
  explicit WorkDirectory(const std::string& above) : path(above + "/" + std::to_string(getpid())) {
    must(mkdir(path.c_str(), 0755), path);
  }
  ~WorkDirectory() {
    const std::string command = "rm -rf -- '" + path + "'";
    if (system(command.c_str()) != 0) std::cerr << path << ": not removed\n";
  }
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;
  const std::string path;
};

void run_changes(const std::string& root, uint64_t count) {
  const WorkDirectory work(root + "/changes");
  Words before, after;
  for (uint64_t i = 0; i < count; ++i) {
    before.push_back(numbered(work.path + "/f", i));
    after.push_back(numbered(work.path + "/renamed", i));
  }
  measure("create", [&] { return cycle(before, count, create_one); });
  measure("rename", [&] {
    for (uint64_t i = 0; i < count; ++i) must(rename(before[i].c_str(), after[i].c_str()), before[i]);
    return count;
  });
  measure("unlink", [&] {
    return cycle(after, count, [](const std::string& path) { must(unlink(path.c_str()), path); });
  });
}

/** As find(1) walks: reads each directory and looks at what is in it. Answers how many files there were. */
uint64_t walk(int parent, const char* name) {
  const int fd = must(openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), name);
  DIR* const stream = fdopendir(fd);
  if (stream == nullptr) fail(name);
  uint64_t files = 0;
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] == '.') continue;
    struct stat attributes;
    must(fstatat(fd, entry->d_name, &attributes, AT_SYMLINK_NOFOLLOW), entry->d_name);
    files += S_ISDIR(attributes.st_mode) ? walk(fd, entry->d_name) : 1;
  }
  closedir(stream);
  return files;
}

void run_walk(const std::string& root, uint64_t) {
  const std::string top = root + "/walk";
  measure("walk", [&] { return walk(AT_FDCWD, top.c_str()); });
  measure("walk-again", [&] { return walk(AT_FDCWD, top.c_str()); });
}

/** Two trees, neither of which the mount has seen. */
void run_grow(const std::string& root, uint64_t) {
  const std::string small = root + "/grow-small";
  const std::string large = root + "/grow-large";
  measure("grow-small", [&] { return walk(AT_FDCWD, small.c_str()); });
  measure("grow-large", [&] { return walk(AT_FDCWD, large.c_str()); });
}

/** Drops the pages of a file, here and below the contender; only clean ones go. */
void drop_pages(const std::string& path) {
  const File file(path, O_RDONLY | O_CLOEXEC);
  must(fdatasync(file.fd()), path);
  errno = posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  if (errno != 0) fail(path);
}

uint64_t read_all(const std::string& path) {
  std::vector<char> buffer(kChunk);
  const File file(path, O_RDONLY | O_CLOEXEC);
  uint64_t bytes = 0;
  while (const int got = must(static_cast<int>(read(file.fd(), buffer.data(), buffer.size())), path)) {
    bytes += static_cast<uint64_t>(got);
  }
  return bytes / kChunk;
}

uint64_t write_all(const std::string& path, uint64_t chunks) {
  const std::vector<char> buffer(kChunk, 'x');
  const File file(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  for (uint64_t i = 0; i < chunks; ++i) {
    if (write(file.fd(), buffer.data(), buffer.size()) != static_cast<ssize_t>(buffer.size())) fail(path);
  }
  must(fsync(file.fd()), path);
  return chunks;
}

/** `backing` is where the large file really lies. Its pages are dropped there too, or a cold read would come from them. */
void run_sequential(const std::string& root, uint64_t chunks, const std::string& backing) {
  const std::string path = root + "/large-file";
  drop_pages(path);
  drop_pages(backing);
  measure("read-cold", [&] { return read_all(path); });
  read_all(path);
  measure("read-warm", [&] { return read_all(path); });
  const WorkDirectory work(root + "/work");
  measure("write", [&] { return write_all(work.path + "/written", chunks); });
}

void run_program(const Words& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t child = must(fork(), "fork");
  if (child == 0) {
    const int nowhere = open("/dev/null", O_RDWR);
    dup2(nowhere, 0);
    dup2(nowhere, 1);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  must(waitpid(child, &status, 0), words[0]);
  if (status != 0) throw std::runtime_error(words[0] + ": failed");
}

void run_compile(const Words& command) {
  const auto once = [&] {
    run_program(command);
    return uint64_t{1};
  };
  measure("compile-first", once);
  measure("compile", once);
}

/** As a build does: unpacks its sources, then asks git what has changed, twice. */
void run_sources(const std::string& root, uint64_t files, const std::string& archive) {
  const WorkDirectory work(root + "/work");
  measure("untar", [&] {
    run_program({"tar", "-xf", archive, "-C", work.path});
    return files;
  });
  const Words status = {"git", "-c", "safe.directory=*", "-C", work.path + "/sources", "status", "--porcelain"};
  measure("git-status-first", [&] {
    run_program(status);
    return files;
  });
  measure("git-status", [&] {
    run_program(status);
    return files;
  });
}

void make_files(const std::string& directory, uint64_t directories, uint64_t files, uint64_t bytes) {
  const std::string content(bytes, 'x');
  must(mkdir(directory.c_str(), 0755), directory);
  for (uint64_t i = 0; i < directories; ++i) {
    const std::string below = numbered(directory + "/d", i);
    must(mkdir(below.c_str(), 0755), below);
    for (uint64_t j = 0; j < files; ++j) {
      const std::string path = numbered(below + "/f", j);
      const File file(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (write(file.fd(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) fail(path);
    }
  }
}

void run(const Words& words) {
  const std::string& workload = words.at(0);
  const std::string& root = words.at(1);
  const uint64_t count = std::stoull(words.at(2));
  if (workload == "make") return make_files(root, count, std::stoull(words.at(3)), std::stoull(words.at(4)));
  if (workload == "stat") return run_stat(root, count);
  if (workload == "lookup") return run_lookup(root, count);
  if (workload == "open") return run_open(root, count);
  if (workload == "missing") return run_missing(root, count);
  if (workload == "links") return run_links(root, count);
  if (workload == "changes") return run_changes(root, count);
  if (workload == "walk") return run_walk(root, count);
  if (workload == "grow") return run_grow(root, count);
  if (workload == "sequential") return run_sequential(root, count, words.at(3));
  if (workload == "sources") return run_sources(root, count, words.at(3));
  if (workload == "compile") return run_compile(Words(words.begin() + 3, words.end()));
  throw std::runtime_error(workload + ": no such workload");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(Words(argv + 1, argv + argc));
  } catch (const Ended&) {
    return 0;
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
