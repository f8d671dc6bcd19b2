// What files, names and owners do beyond single operations.

#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <climits>
#include <csignal>
#include <cstdlib>
#include <map>
#include <set>

#include "suite.h"

using namespace posix;

namespace {

constexpr size_t kPage = 4096;

/** A mapping of a whole file's first bytes. */
char* map_file(int fd, size_t size, int protection, int flags) {
  void* const mapped = mmap(nullptr, size, protection, flags, fd, 0);
  CHECK(mapped != MAP_FAILED);
  return static_cast<char*>(mapped);
}

std::string numbered(const std::string& dir, int i) { return dir + "/" + std::to_string(i); }

}  // namespace

POSIX_TEST(mmap_private, "mmap: what a private mapping writes stays its own") {
  write_file(dir + "/file", std::string(kPage, 'f'));
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDONLY);
  char* const memory = map_file(fd, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  memory[0] = 'p';
  CHECK_EQ(read_at(fd, 1, 0), "f");
}

POSIX_TEST(mmap_unlinked, "mmap: a mapping outlives the descriptor and the name") {
  Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  OK(ftruncate(fd, kPage));
  char* const memory = map_file(fd, kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  OK(unlink((dir + "/file").c_str()));
  fd.reset();
  memory[7] = 'x';
  OK(msync(memory, kPage, MS_SYNC));
  CHECK_EQ(memory[7], 'x');
}

POSIX_TEST(mmap_truncated, "mmap: what a truncation took away is SIGBUS, what it gave back is zero") {
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  write_at(fd, std::string(2 * kPage, 'x'), 0);
  volatile char* const memory = map_file(fd, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  CHECK_EQ(memory[kPage], 'x');
  OK(ftruncate(fd, 10));
  const pid_t reader = OK(fork());
  if (reader == 0) _exit(memory[kPage]);
  int status;
  OK(waitpid(reader, &status, 0));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
  OK(ftruncate(fd, 2 * kPage));
  CHECK_EQ(memory[kPage], '\0');
  CHECK_EQ(memory[10], '\0');
  CHECK_EQ(memory[9], 'x');
}

POSIX_TEST(executables, "a program runs from there, and cannot be written while it does") {
  const std::string program = dir + "/sleep";
  CHECK_EQ(system(("cp /bin/sleep " + program).c_str()), 0);
  const pid_t running = OK(fork());
  if (running == 0) {
    execl(program.c_str(), "sleep", "60", nullptr);
    _exit(9);
  }
  const std::string link = "/proc/" + std::to_string(running) + "/exe";
  char target[PATH_MAX] = "";
  for (int tries = 0; tries < 100000 && strstr(target, "/sleep") == nullptr; ++tries) {
    const ssize_t size = readlink(link.c_str(), target, sizeof target - 1);
    target[size > 0 ? size : 0] = '\0';
  }
  FAILS(open(program.c_str(), O_WRONLY), ETXTBSY);
  OK(kill(running, SIGKILL));
  OK(waitpid(running, nullptr, 0));
  const Fd writable = OPEN(program.c_str(), O_WRONLY);
}

POSIX_TEST(holes, "holes take no room and read as zeros, wherever data was written") {
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  write_at(fd, "one", 1 << 20);
  write_at(fd, "two", 3 << 20);
  CHECK_EQ(stat_of(fd).st_size, (3 << 20) + 3);
  CHECK(stat_of(fd).st_blocks < 100);
  CHECK(read_at(fd, 10, (1 << 20) - 5) == std::string("\0\0\0\0\0one\0\0", 10));
  CHECK(read_at(fd, 65536, 2 << 20) == std::string(65536, '\0'));
}

POSIX_TEST(big_files, "a file behind 4 GiB is read, written, mapped and cut") {
  const off_t far = (off_t{5} << 30) + 123;
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  write_at(fd, "far away", far);
  CHECK_EQ(stat_of(dir + "/file").st_size, far + 8);
  CHECK_EQ(read_at(fd, 100, far), "far away");
  CHECK_EQ(read_at(fd, 2, far - (off_t{1} << 32)), std::string(2, '\0'));
  const off_t page = far / kPage * kPage;
  void* const mapped = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
  CHECK(mapped != MAP_FAILED);
  static_cast<char*>(mapped)[far - page] = 'F';
  CHECK_EQ(read_at(fd, 3, far), "Far");
  OK(truncate((dir + "/file").c_str(), (off_t{1} << 32) + 1));
  CHECK_EQ(OK(lseek(fd, 0, SEEK_END)), (off_t{1} << 32) + 1);
}

POSIX_TEST(copy_range, "copy_file_range and sendfile's like copy between files and within one") {
  write_file(dir + "/from", "0123456789");
  const Fd from = OPEN((dir + "/from").c_str(), O_RDWR);
  const Fd to = OPEN((dir + "/to").c_str(), O_RDWR | O_CREAT, 0600);
  off_t in = 2, out = 3;
  CHECK_EQ(OK(copy_file_range(from, &in, to, &out, 5, 0)), 5);
  CHECK_EQ(read_file(dir + "/to"), std::string("\0\0\0" "23456", 8));
}

POSIX_TEST(unlinked_files, "an unlinked open file is read, written and changed in every way, also by another process") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  write_at(fd, "content", 0);
  OK(unlink(file.c_str()));
  write_file(file, "its namesake");
  CHECK_EQ(stat_of(fd).st_nlink, 0u);
  write_at(fd, "CON", 0);
  OK(ftruncate(fd, 5));
  OK(fchmod(fd, 0640));
  OK(fchown(fd, kAnna, kAnna));
  const timespec times[2] = {{1, 2}, {3, 4}};
  OK(futimens(fd, times));
  OK(fsetxattr(fd, "user.x", "y", 1, 0));
  OK(fallocate(fd, 0, 0, 10));
  CHECK_EQ(stat_of(fd).st_mode & 07777, 0640u);
  CHECK_EQ(stat_of(fd).st_uid, kAnna);
  CHECK_EQ(stat_of(fd).st_size, 10);
  Child([&] {
    const Fd again = OPEN(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY);
    CHECK_EQ(read_all(again), std::string("CONte\0\0\0\0\0", 10));
  }).join();
  CHECK_EQ(read_file(file), "its namesake");
}

POSIX_TEST(rename_over_open, "a file that another was renamed over keeps its content for who has it open") {
  write_file(dir + "/old", "old");
  write_file(dir + "/new", "new");
  const Fd old = OPEN((dir + "/old").c_str(), O_RDWR);
  OK(rename((dir + "/new").c_str(), (dir + "/old").c_str()));
  write_at(old, "OLD", 0);
  CHECK_EQ(read_at(old, 9, 0), "OLD");
  CHECK_EQ(stat_of(old).st_nlink, 0u);
  CHECK_EQ(read_file(dir + "/old"), "new");
}

POSIX_TEST(rename_open, "an open file, and files below an open directory, move with their names") {
  OK(mkdir((dir + "/a").c_str(), 0755));
  OK(mkdir((dir + "/a/b").c_str(), 0755));
  const Fd directory = OPEN((dir + "/a/b").c_str(), O_RDONLY | O_DIRECTORY);
  const Fd fd = OPEN((dir + "/a/b/file").c_str(), O_RDWR | O_CREAT, 0600);
  OK(rename((dir + "/a").c_str(), (dir + "/z").c_str()));
  write_at(fd, "moved", 0);
  OK(renameat(directory, "file", directory, "renamed"));
  CHECK_EQ(read_file(dir + "/z/b/renamed"), "moved");
  OK(chdir((dir + "/z/b").c_str()));
  char path[PATH_MAX];
  CHECK(getcwd(path, sizeof path) != nullptr);
  CHECK_EQ(std::string(path), dir + "/z/b");
}

POSIX_TEST(removed_directory, "a removed working directory is empty, and nothing is made in it") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  OK(chdir((dir + "/sub").c_str()));
  OK(rmdir((dir + "/sub").c_str()));
  FAILS(open("file", O_WRONLY | O_CREAT, 0600), ENOENT);
  FAILS(mkdir("sub", 0755), ENOENT);
  struct stat attr;
  OK(stat(".", &attr));
  CHECK(S_ISDIR(attr.st_mode));
}

POSIX_TEST(recycled_inodes, "a file is never taken for another whose inode number it got") {
  std::set<ino_t> numbers;
  int recycled = 0;
  for (int i = 0; i < 1500; ++i) {
    const std::string path = dir + "/name" + std::to_string(i % 3);
    if (i % 5 == 4) {
      OK(mkdir(path.c_str(), 0700));
      CHECK_EQ(names_in(path).size(), 0u);
      OK(rmdir(path.c_str()));
      continue;
    }
    write_file(path, "content " + std::to_string(i), i % 2 == 0 ? 0600 : 0644);
    recycled += numbers.insert(stat_of(path).st_ino).second ? 0 : 1;
    CHECK_EQ(read_file(path), "content " + std::to_string(i));
    CHECK_EQ(mode_of(path), i % 2 == 0 ? 0600u : 0644u);
    OK(unlink(path.c_str()));
  }
  CHECK(recycled > 0);
}

POSIX_TEST(hard_links, "what is done through one hard link is seen through the others at once") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  write_file(dir + "/a", "content");
  OK(link((dir + "/a").c_str(), (dir + "/sub/b").c_str()));
  OK(chmod((dir + "/a").c_str(), 0600));
  CHECK_EQ(mode_of(dir + "/sub/b"), 0600u);
  write_file(dir + "/sub/b", "longer content");
  CHECK_EQ(read_file(dir + "/a"), "longer content");
  CHECK_EQ(stat_of(dir + "/a").st_size, 14);
  OK(unlink((dir + "/a").c_str()));
  CHECK_EQ(stat_of(dir + "/sub/b").st_nlink, 1u);
  OK(rename((dir + "/sub").c_str(), (dir + "/moved").c_str()));
  OK(link((dir + "/moved/b").c_str(), (dir + "/a").c_str()));
  CHECK_EQ(stat_of(dir + "/moved/b").st_nlink, 2u);
  CHECK_EQ(read_file(dir + "/a"), "longer content");
}

POSIX_TEST(long_names, "names have up to 255 bytes, paths up to 4095") {
  const std::string longest = dir + "/" + std::string(255, 'n');
  write_file(longest, "long");
  CHECK(names_in(dir) == std::vector<std::string>(1, std::string(255, 'n')));
  FAILS(open((longest + "n").c_str(), O_WRONLY | O_CREAT, 0600), ENAMETOOLONG);
  FAILS(mkdir((longest + "n").c_str(), 0700), ENAMETOOLONG);
  FAILS(rename(longest.c_str(), (longest + "n").c_str()), ENAMETOOLONG);
  FAILS(access((dir + "/" + std::string(PATH_MAX, '/')).c_str(), F_OK), ENAMETOOLONG);
}

POSIX_TEST(byte_names, "names are bytes: any but / and NUL, also what is no UTF-8") {
  std::vector<std::string> names;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '/') names.push_back("b" + std::string(1, static_cast<char>(byte)));
  }
  for (const std::string& name : names) write_file(dir + "/" + name, name);
  CHECK(names_in(dir) == names);
  for (const std::string& name : names) CHECK_EQ(read_file(dir + "/" + name), name);
}

POSIX_TEST(error_paths, "ELOOP, ENOTDIR and EXDEV are told for what they are") {
  OK(symlink("self", (dir + "/self").c_str()));
  FAILS(open((dir + "/self").c_str(), O_RDONLY), ELOOP);
  OK(symlink("there", (dir + "/here").c_str()));
  OK(symlink("here", (dir + "/there").c_str()));
  FAILS(chmod((dir + "/here/file").c_str(), 0600), ELOOP);
  write_file(dir + "/file", "");
  FAILS(open((dir + "/file/below").c_str(), O_RDONLY), ENOTDIR);
  const std::string elsewhere = "/dev/shm/obuilder-fs-posix." + std::to_string(getpid());
  FAILS(rename((dir + "/file").c_str(), elsewhere.c_str()), EXDEV);
  FAILS(link((dir + "/file").c_str(), elsewhere.c_str()), EXDEV);
}

POSIX_TEST(big_directory, "a directory of 10,000 names lists each once, and telldir leads back to any of them") {
  const std::string sub = dir + "/sub";
  OK(mkdir(sub.c_str(), 0755));
  for (int i = 0; i < 10000; ++i) OK(mknod(numbered(sub, i).c_str(), S_IFREG | 0600, 0));
  CHECK_EQ(names_in(sub).size(), 10000u);
  DIR* const stream = opendir(sub.c_str());
  std::map<long, std::string> at;
  for (;;) {
    const long place = telldir(stream);
    const dirent* const entry = readdir(stream);
    if (entry == nullptr) break;
    at[place] = entry->d_name;
  }
  CHECK_EQ(at.size(), 10002u);
  int i = 0;
  for (const auto& [place, name] : at) {
    if (++i % 97 != 0) continue;
    seekdir(stream, place);
    CHECK_EQ(std::string(readdir(stream)->d_name), name);
  }
  rewinddir(stream);
  int count = 0;
  while (readdir(stream) != nullptr) ++count;
  CHECK_EQ(count, 10002);
  closedir(stream);
}

POSIX_TEST(shrinking_directory, "a listing during which names are removed has every name that stays, once") {
  const std::string sub = dir + "/sub";
  OK(mkdir(sub.c_str(), 0755));
  for (int i = 0; i < 2000; ++i) write_file(numbered(sub, i), "");
  DIR* const stream = opendir(sub.c_str());
  std::multiset<std::string> seen;
  int removed = 1;
  while (const dirent* const entry = readdir(stream)) {
    seen.insert(entry->d_name);
    for (int n = 0; n < 2 && removed < 2000; ++n, removed += 2) OK(unlink(numbered(sub, removed).c_str()));
  }
  closedir(stream);
  for (int i = 0; i < 2000; i += 2) CHECK_EQ(seen.count(std::to_string(i)), 1u);
  CHECK_EQ(names_in(sub).size(), 1000u);
}

POSIX_TEST(umask_test, "new files have the mode asked for less the umask") {
  for (const mode_t mask : {0u, 022u, 077u, 0777u}) {
    umask(mask);
    const std::string base = dir + "/" + std::to_string(mask);
    { const Fd fd = OPEN((base + "file").c_str(), O_WRONLY | O_CREAT, 0666); }
    OK(mkdir((base + "dir").c_str(), 0777));
    OK(mkfifo((base + "fifo").c_str(), 0666));
    CHECK_EQ(mode_of(base + "file"), 0666 & ~mask);
    CHECK_EQ(mode_of(base + "dir"), 0777 & ~mask);
    CHECK_EQ(mode_of(base + "fifo"), 0666 & ~mask);
  }
}

POSIX_TEST(permissions, "each class of users has its own rights, and supplementary groups count") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  write_file(dir + "/sub/secret", "secret", 0640);
  OK(chown((dir + "/sub/secret").c_str(), 0, kShared));
  write_file(dir + "/sub/open", "open");
  as_user(kAnna, [&] {
    FAILS(open((dir + "/sub/secret").c_str(), O_RDONLY), EACCES);
    FAILS(open((dir + "/sub/mine").c_str(), O_WRONLY | O_CREAT, 0600), EACCES);
    FAILS(unlink((dir + "/sub/open").c_str()), EACCES);
    FAILS(chmod((dir + "/sub/open").c_str(), 0777), EPERM);
    FAILS(chown((dir + "/sub/open").c_str(), kAnna, kAnna), EPERM);
    const timespec times[2] = {{1, 0}, {1, 0}};
    FAILS(utimensat(AT_FDCWD, (dir + "/sub/open").c_str(), times, 0), EPERM);
    FAILS(utimensat(AT_FDCWD, (dir + "/sub/open").c_str(), nullptr, 0), EACCES);
  });
  as_user(kAnna, [&] { CHECK_EQ(read_file(dir + "/sub/secret"), "secret"); }, {kShared});
  as_user(kAnna, [&] {
    write_file(dir + "/annas", "");
    OK(chown((dir + "/annas").c_str(), static_cast<uid_t>(-1), kShared));
    FAILS(chown((dir + "/annas").c_str(), static_cast<uid_t>(-1), kBert), EPERM);
  }, {kShared});
  OK(chmod((dir + "/sub").c_str(), 0700));
  as_user(kAnna, [&] { FAILS(open((dir + "/sub/open").c_str(), O_RDONLY), EACCES); });
}

POSIX_TEST(kept_rights, "an open descriptor keeps its rights when the mode goes") {
  write_file(dir + "/file", "content", 0666);
  as_user(kAnna, [&] {
    const Fd mine = OPEN((dir + "/own").c_str(), O_RDWR | O_CREAT, 0600);
    OK(fchmod(mine, 0));
    write_at(mine, "still", 0);
    CHECK_EQ(read_at(mine, 9, 0), "still");
    FAILS(open((dir + "/own").c_str(), O_RDONLY), EACCES);
  });
}

POSIX_TEST(sticky, "in a sticky directory nobody removes or renames another's file") {
  const std::string sub = dir + "/sub";
  OK(mkdir(sub.c_str(), 0755));
  OK(chmod(sub.c_str(), 01777));
  as_user(kAnna, [&] { write_file(sub + "/annas", "", 0666); });
  as_user(kBert, [&] {
    FAILS(unlink((sub + "/annas").c_str()), EPERM);
    FAILS(rename((sub + "/annas").c_str(), (sub + "/berts").c_str()), EPERM);
    write_file(sub + "/own", "");
    FAILS(rename((sub + "/own").c_str(), (sub + "/annas").c_str()), EPERM);
    OK(unlink((sub + "/own").c_str()));
  });
  as_user(kAnna, [&] { OK(unlink((sub + "/annas").c_str())); });
}

POSIX_TEST(setgid_directory, "in a setgid directory files get its group, and directories its bit") {
  const std::string sub = dir + "/sub";
  OK(mkdir(sub.c_str(), 0755));
  OK(chown(sub.c_str(), 0, kShared));
  OK(chmod(sub.c_str(), 02777));
  as_user(kAnna, [&] {
    write_file(sub + "/file", "");
    OK(mkdir((sub + "/dir").c_str(), 0755));
    OK(symlink("x", (sub + "/link").c_str()));
    const Fd fd = OPEN((sub + "/suid").c_str(), O_WRONLY | O_CREAT, 0755);
    OK(fchmod(fd, 02755));
  });
  CHECK_EQ(stat_of(sub + "/file").st_gid, kShared);
  CHECK_EQ(stat_of(sub + "/file").st_uid, kAnna);
  CHECK_EQ(lstat_of(sub + "/link").st_gid, kShared);
  CHECK_EQ(mode_of(sub + "/dir"), 02755u);
  CHECK_EQ(mode_of(sub + "/suid"), 0755u);  // its owner is not of the group
}

POSIX_TEST(set_id_bits, "set-id bits go with a write or a truncation by another than root, and with any change of owner") {
  const std::string file = dir + "/file";
  const auto make = [&] {
    write_file(file, "program");
    OK(chown(file.c_str(), 0, 0));
    OK(chmod(file.c_str(), 06777));
  };
  make();
  as_user(kAnna, [&] { write_at(OPEN(file.c_str(), O_WRONLY), "x", 0); });
  CHECK_EQ(mode_of(file), 0777u);
  make();
  as_user(kAnna, [&] { OK(truncate(file.c_str(), 1)); });
  CHECK_EQ(mode_of(file), 0777u);
  make();
  as_user(kAnna, [&] { const Fd fd = OPEN(file.c_str(), O_WRONLY | O_TRUNC); });
  CHECK_EQ(mode_of(file), 0777u);
  make();
  OK(chown(file.c_str(), kAnna, kAnna));
  CHECK_EQ(mode_of(file), 0777u);
  make();
  write_at(OPEN(file.c_str(), O_WRONLY), "x", 0);
  CHECK_EQ(mode_of(file), 06777u);
}
