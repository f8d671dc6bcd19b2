// One test or more for each operation that the mount answers, named for it.

#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include <map>

#include "suite.h"

using namespace posix;

namespace {

constexpr timespec kOmit{0, UTIME_OMIT};

int rename_with(const std::string& from, const std::string& to, unsigned flags) {
  return renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags);
}

/** Lets the kernel forget every file that nobody uses; without the right to, the caller tests what is cached. */
void drop_kernel_caches() {
  const int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
  if (fd < 0) return;
  sync();
  if (write(fd, "2", 1) < 0) errno = 0;
  close(fd);
}

std::string listed_xattrs(const std::string& path) {
  char names[4096];
  std::string text(names, static_cast<size_t>(OK(listxattr(path.c_str(), names, sizeof names))));
  for (char& byte : text) {
    if (byte == '\0') byte = ' ';
  }
  return text;
}

}  // namespace

POSIX_TEST(lookup, "lookup: a name is there once made and missing once removed, however often it was missed before") {
  const std::string file = dir + "/file";
  struct stat attr;
  for (int round = 0; round < 3; ++round) {
    FAILS(stat(file.c_str(), &attr), ENOENT);
    FAILS(stat(file.c_str(), &attr), ENOENT);
    write_file(file, "x");
    CHECK_EQ(stat_of(file).st_size, 1);
    OK(unlink(file.c_str()));
  }
  FAILS(stat((dir + "/missing/file").c_str(), &attr), ENOENT);
}

POSIX_TEST(forget, "forget: files that the kernel dropped are found again, and an open one stays itself") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  const auto path = [&](int i) { return dir + "/sub/file" + std::to_string(i); };
  for (int i = 0; i < 200; ++i) write_file(path(i), std::to_string(i));
  const Fd open_file = OPEN(path(7).c_str(), O_RDONLY);
  OK(rename(path(7).c_str(), (dir + "/sub/moved").c_str()));
  drop_kernel_caches();
  CHECK_EQ(read_all(open_file), "7");
  CHECK_EQ(read_file(dir + "/sub/moved"), "7");
  for (int i = 8; i < 200; ++i) CHECK_EQ(read_file(path(i)), std::to_string(i));
}

POSIX_TEST(getattr, "getattr: stat and fstat agree on every attribute, before and after a change") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0640);
  for (const char* text : {"", "some", "something longer"}) {
    write_at(fd, text, 0);
    const struct stat by_name = stat_of(file);
    const struct stat by_fd = stat_of(fd);
    CHECK_EQ(by_name.st_ino, by_fd.st_ino);
    CHECK_EQ(by_name.st_dev, by_fd.st_dev);
    CHECK_EQ(by_name.st_mode, static_cast<mode_t>(S_IFREG | 0640));
    CHECK_EQ(by_name.st_nlink, 1u);
    CHECK_EQ(by_name.st_size, static_cast<off_t>(strlen(text)));
    CHECK_EQ(by_fd.st_size, by_name.st_size);
    CHECK_EQ(by_fd.st_mtim.tv_nsec, by_name.st_mtim.tv_nsec);
  }
}

POSIX_TEST(setattr, "setattr: mode, owner and size change by name and by descriptor") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  OK(chmod(file.c_str(), 0751));
  CHECK_EQ(mode_of(file), 0751u);
  OK(fchmod(fd, 01640));
  CHECK_EQ(mode_of(file), 01640u);
  OK(chown(file.c_str(), kAnna, kShared));
  CHECK_EQ(stat_of(fd).st_uid, kAnna);
  OK(fchown(fd, kBert, static_cast<gid_t>(-1)));
  CHECK_EQ(stat_of(file).st_uid, kBert);
  CHECK_EQ(stat_of(file).st_gid, kShared);
  write_at(fd, "0123456789", 0);
  OK(truncate(file.c_str(), 4));
  CHECK_EQ(read_file(file), "0123");
  OK(ftruncate(fd, 6));
  CHECK_EQ(read_file(file), std::string("0123\0\0", 6));
  FAILS(truncate(dir.c_str(), 0), EISDIR);
  FAILS(ftruncate(fd, -1), EINVAL);
}

POSIX_TEST(setattr_times, "setattr: times keep their nanoseconds, now is now, and what is left out stays") {
  const std::string file = dir + "/file";
  write_file(file, "");
  const timespec times[2] = {{1000000001, 123456789}, {2000000002, 987654321}};
  OK(utimensat(AT_FDCWD, file.c_str(), times, 0));
  CHECK_EQ(stat_of(file).st_atim.tv_sec, times[0].tv_sec);
  CHECK_EQ(stat_of(file).st_atim.tv_nsec, times[0].tv_nsec);
  CHECK_EQ(stat_of(file).st_mtim.tv_sec, times[1].tv_sec);
  CHECK_EQ(stat_of(file).st_mtim.tv_nsec, times[1].tv_nsec);
  const timespec only_mtime[2] = {kOmit, {1500000000, 5}};
  OK(utimensat(AT_FDCWD, file.c_str(), only_mtime, 0));
  CHECK_EQ(stat_of(file).st_atim.tv_nsec, times[0].tv_nsec);
  CHECK_EQ(stat_of(file).st_mtim.tv_nsec, 5);
  const timespec now[2] = {{0, UTIME_NOW}, kOmit};
  OK(utimensat(AT_FDCWD, file.c_str(), now, 0));
  CHECK(stat_of(file).st_atim.tv_sec > 1600000000);
  CHECK_EQ(stat_of(file).st_mtim.tv_nsec, 5);
  OK(symlink("nowhere", (dir + "/link").c_str()));
  OK(utimensat(AT_FDCWD, (dir + "/link").c_str(), times, AT_SYMLINK_NOFOLLOW));
  CHECK_EQ(lstat_of(dir + "/link").st_mtim.tv_nsec, times[1].tv_nsec);
}

POSIX_TEST(readlink_test, "readlink: a target is told as it was given, up to 4095 bytes, whether it exists or not") {
  for (const std::string& target : {std::string("x"), std::string("../a//b/."), std::string(4095, 'l')}) {
    const std::string link = dir + "/link" + std::to_string(target.size());
    OK(symlink(target.c_str(), link.c_str()));
    std::string told(5000, '?');
    told.resize(static_cast<size_t>(OK(readlink(link.c_str(), told.data(), told.size()))));
    CHECK_EQ(told, target);
    CHECK_EQ(lstat_of(link).st_size, static_cast<off_t>(target.size()));
  }
  char byte;
  FAILS(readlink(dir.c_str(), &byte, 1), EINVAL);
  FAILS(readlink((dir + "/missing").c_str(), &byte, 1), ENOENT);
}

POSIX_TEST(mknod_test, "mknod: files, fifos, sockets and devices have the type, mode and number asked for") {
  const std::map<mode_t, dev_t> types = {
      {S_IFREG, 0}, {S_IFIFO, 0}, {S_IFSOCK, 0}, {S_IFCHR, makedev(1, 3)}, {S_IFBLK, makedev(7, 200)}};
  for (const auto& [type, device] : types) {
    const std::string path = dir + "/node" + std::to_string(type);
    OK(mknod(path.c_str(), type | 0640, device));
    CHECK_EQ(stat_of(path).st_mode, type | 0640);
    CHECK_EQ(stat_of(path).st_rdev, device);
    FAILS(mknod(path.c_str(), type | 0640, device), EEXIST);
  }
  as_user(kAnna, [&] { FAILS(mknod((dir + "/device").c_str(), S_IFCHR | 0666, makedev(1, 3)), EPERM); });
}

POSIX_TEST(mkdir_test, "mkdir: a directory counts in its parent's links and is no name twice") {
  const std::string parent = dir + "/parent";
  OK(mkdir(parent.c_str(), 0755));
  CHECK_EQ(stat_of(parent).st_nlink, 2u);
  OK(mkdir((parent + "/child").c_str(), 0750));
  CHECK_EQ(stat_of(parent).st_nlink, 3u);
  CHECK_EQ(mode_of(parent + "/child"), 0750u);
  FAILS(mkdir(parent.c_str(), 0755), EEXIST);
  FAILS(mkdir((dir + "/missing/child").c_str(), 0755), ENOENT);
  write_file(dir + "/file", "");
  FAILS(mkdir((dir + "/file/child").c_str(), 0755), ENOTDIR);
}

POSIX_TEST(symlink_test, "symlink: it leads where it says, and takes no name that is there") {
  write_file(dir + "/file", "content");
  OK(symlink("file", (dir + "/link").c_str()));
  CHECK_EQ(read_file(dir + "/link"), "content");
  CHECK(S_ISLNK(lstat_of(dir + "/link").st_mode));
  CHECK_EQ(mode_of(dir + "/link"), 0777u);
  FAILS(symlink("other", (dir + "/link").c_str()), EEXIST);
  FAILS(symlink("", (dir + "/empty").c_str()), ENOENT);
}

POSIX_TEST(link_test, "link: another name for the same file, never for a directory") {
  write_file(dir + "/file", "one");
  OK(link((dir + "/file").c_str(), (dir + "/twin").c_str()));
  CHECK_EQ(stat_of(dir + "/file").st_ino, stat_of(dir + "/twin").st_ino);
  CHECK_EQ(stat_of(dir + "/file").st_nlink, 2u);
  FAILS(link((dir + "/file").c_str(), (dir + "/twin").c_str()), EEXIST);
  FAILS(link((dir + "/missing").c_str(), (dir + "/other").c_str()), ENOENT);
  OK(mkdir((dir + "/sub").c_str(), 0755));
  FAILS(link((dir + "/sub").c_str(), (dir + "/other").c_str()), EPERM);
  OK(link((dir + "/twin").c_str(), (dir + "/sub/third").c_str()));
  CHECK_EQ(stat_of(dir + "/file").st_nlink, 3u);
  OK(symlink("file", (dir + "/soft").c_str()));
  OK(link((dir + "/soft").c_str(), (dir + "/soft2").c_str()));
  CHECK(S_ISLNK(lstat_of(dir + "/soft2").st_mode));
}

POSIX_TEST(unlink_test, "unlink: one name goes, a directory stays") {
  write_file(dir + "/file", "");
  OK(link((dir + "/file").c_str(), (dir + "/twin").c_str()));
  OK(unlink((dir + "/file").c_str()));
  FAILS(unlink((dir + "/file").c_str()), ENOENT);
  CHECK_EQ(stat_of(dir + "/twin").st_nlink, 1u);
  OK(mkdir((dir + "/sub").c_str(), 0755));
  FAILS(unlink((dir + "/sub").c_str()), EISDIR);
}

POSIX_TEST(rmdir_test, "rmdir: only an empty directory goes") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  write_file(dir + "/sub/file", "");
  FAILS(rmdir((dir + "/sub").c_str()), ENOTEMPTY);
  FAILS(rmdir((dir + "/sub/file").c_str()), ENOTDIR);
  FAILS(rmdir((dir + "/sub/.").c_str()), EINVAL);
  OK(unlink((dir + "/sub/file").c_str()));
  OK(rmdir((dir + "/sub").c_str()));
  FAILS(rmdir((dir + "/sub").c_str()), ENOENT);
}

POSIX_TEST(rename_test, "rename: files and directories move, and replace only their like") {
  write_file(dir + "/a", "a");
  write_file(dir + "/b", "b");
  OK(rename((dir + "/a").c_str(), (dir + "/b").c_str()));
  CHECK_EQ(read_file(dir + "/b"), "a");
  FAILS(rename((dir + "/a").c_str(), (dir + "/c").c_str()), ENOENT);
  OK(mkdir((dir + "/full").c_str(), 0755));
  write_file(dir + "/full/file", "");
  OK(mkdir((dir + "/empty").c_str(), 0755));
  FAILS(rename((dir + "/empty").c_str(), (dir + "/full").c_str()), ENOTEMPTY);
  FAILS(rename((dir + "/b").c_str(), (dir + "/empty").c_str()), EISDIR);
  FAILS(rename((dir + "/empty").c_str(), (dir + "/b").c_str()), ENOTDIR);
  FAILS(rename((dir + "/full").c_str(), (dir + "/full/inside").c_str()), EINVAL);
  OK(rename((dir + "/full").c_str(), (dir + "/empty").c_str()));
  CHECK_EQ(names_in(dir + "/empty").size(), 1u);
  OK(rename((dir + "/b").c_str(), (dir + "/empty/b").c_str()));
  CHECK_EQ(read_file(dir + "/empty/b"), "a");
}

POSIX_TEST(rename_links, "rename: two names of one file both stay") {
  write_file(dir + "/a", "same");
  OK(link((dir + "/a").c_str(), (dir + "/b").c_str()));
  OK(rename((dir + "/a").c_str(), (dir + "/b").c_str()));
  CHECK_EQ(read_file(dir + "/a"), "same");
  CHECK_EQ(read_file(dir + "/b"), "same");
}

POSIX_TEST(rename_flags, "rename with flags: RENAME_NOREPLACE refuses, RENAME_EXCHANGE swaps, also a file and a directory") {
  write_file(dir + "/a", "a");
  OK(mkdir((dir + "/d").c_str(), 0755));
  write_file(dir + "/d/inside", "i");
  FAILS(rename_with(dir + "/a", dir + "/d", RENAME_NOREPLACE), EEXIST);
  OK(rename_with(dir + "/a", dir + "/d", RENAME_EXCHANGE));
  CHECK_EQ(read_file(dir + "/d"), "a");
  CHECK_EQ(read_file(dir + "/a/inside"), "i");
  FAILS(rename_with(dir + "/a", dir + "/missing", RENAME_EXCHANGE), ENOENT);
  OK(rename_with(dir + "/d", dir + "/new", RENAME_NOREPLACE));
  CHECK_EQ(read_file(dir + "/new"), "a");
  FAILS(rename_with(dir + "/a", dir + "/new", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
  OK(mkdir((dir + "/a/below").c_str(), 0755));
  OK(rename_with(dir + "/a/inside", dir + "/a/below", RENAME_EXCHANGE));
  CHECK_EQ(read_file(dir + "/a/below"), "i");
}

POSIX_TEST(create_test, "create: O_EXCL takes no name that is there, and the descriptor works whatever the mode") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT | O_EXCL, 0000);
  write_at(fd, "mine", 0);
  CHECK_EQ(read_at(fd, 9, 0), "mine");
  CHECK_EQ(mode_of(file), 0u);
  FAILS(open(file.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  OK(symlink("elsewhere", (dir + "/dangling").c_str()));
  FAILS(open((dir + "/dangling").c_str(), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  const Fd through = OPEN((dir + "/dangling").c_str(), O_RDWR | O_CREAT, 0600);
  CHECK_EQ(stat_of(dir + "/elsewhere").st_size, 0);
  as_user(kAnna, [&] {
    const Fd mine = OPEN((dir + "/anna").c_str(), O_WRONLY | O_CREAT | O_EXCL, 0400);
    write_at(mine, "read only for others, written through this one", 0);
    FAILS(open((dir + "/anna").c_str(), O_WRONLY), EACCES);
  });
  CHECK_EQ(stat_of(dir + "/anna").st_uid, kAnna);
}

POSIX_TEST(open_test, "open: O_TRUNC empties; O_DIRECTORY, O_NOFOLLOW and writing a directory are refused as they should be") {
  const std::string file = dir + "/file";
  write_file(file, "content");
  { const Fd truncated = OPEN(file.c_str(), O_WRONLY | O_TRUNC); }
  CHECK_EQ(stat_of(file).st_size, 0);
  FAILS(open(file.c_str(), O_RDONLY | O_DIRECTORY), ENOTDIR);
  OK(mkdir((dir + "/sub").c_str(), 0755));
  FAILS(open((dir + "/sub").c_str(), O_WRONLY), EISDIR);
  FAILS(open((dir + "/sub").c_str(), O_RDONLY | O_CREAT, 0600), EISDIR);
  OK(symlink("file", (dir + "/link").c_str()));
  FAILS(open((dir + "/link").c_str(), O_RDONLY | O_NOFOLLOW), ELOOP);
  FAILS(open((dir + "/missing").c_str(), O_RDONLY), ENOENT);
  const Fd named = OPEN(file.c_str(), O_PATH);
  char byte;
  FAILS(read(named, &byte, 1), EBADF);
  CHECK_EQ(stat_of(named).st_ino, stat_of(file).st_ino);
}

POSIX_TEST(read_test, "read: any part of a file, up to its end and no further") {
  std::string text;
  for (int i = 0; text.size() < 300000; ++i) text += std::to_string(i) + ",";
  const std::string file = dir + "/file";
  write_file(file, text);
  const Fd fd = OPEN(file.c_str(), O_RDONLY);
  for (const size_t offset : {0, 1, 4095, 4096, 131071, 262144, 299990}) {
    CHECK(read_at(fd, 70000, static_cast<off_t>(offset)) == text.substr(offset, 70000));
  }
  CHECK_EQ(read_at(fd, 10, static_cast<off_t>(text.size())), "");
  CHECK(read_all(fd) == text);
  const Fd writer = OPEN(file.c_str(), O_WRONLY);
  char byte;
  FAILS(read(writer, &byte, 1), EBADF);
  char first[3], second[4];
  iovec parts[2] = {{first, sizeof first}, {second, sizeof second}};
  CHECK_EQ(OK(preadv(fd, parts, 2, 5)), 7);
  CHECK(std::string(first, 3) + std::string(second, 4) == text.substr(5, 7));
}

POSIX_TEST(write_test, "write: at any offset, over what is there, behind the end, in parts") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  std::string model(200000, 'm');
  write_at(fd, model, 0);
  for (const size_t offset : {0, 4090, 65536, 199995}) {
    const std::string part = "part at " + std::to_string(offset);
    model.resize(std::max(model.size(), offset + part.size()));
    model.replace(offset, part.size(), part);
    write_at(fd, part, static_cast<off_t>(offset));
  }
  CHECK(read_file(file) == model);
  char one[] = "one", two[] = "two";
  const iovec parts[2] = {{one, 3}, {two, 3}};
  CHECK_EQ(OK(pwritev(fd, parts, 2, 100)), 6);
  CHECK_EQ(read_at(fd, 6, 100), "onetwo");
  const Fd reader = OPEN(file.c_str(), O_RDONLY);
  FAILS(write(reader, "x", 1), EBADF);
  CHECK(stat_of(file).st_mtim.tv_sec >= stat_of(file).st_atim.tv_sec - 60);
}

POSIX_TEST(flush_test, "flush: closing one of two descriptors of an open file leaves the other working") {
  const std::string file = dir + "/file";
  const int fd = OK(open(file.c_str(), O_RDWR | O_CREAT, 0600));
  const Fd twin(OK(dup(fd)));
  write_at(fd, "first ", 0);
  OK(close(fd));
  CHECK_EQ(read_file(file), "first ");
  write_at(twin, "second", 6);
  CHECK_EQ(read_file(file), "first second");
}

POSIX_TEST(release_test, "release: an open file ends with its last holder, in whatever process that is") {
  const std::string file = dir + "/file";
  const Signal parent_closed, child_wrote;
  int fd = OK(open(file.c_str(), O_RDWR | O_CREAT, 0600));
  Child holder([&] {
    parent_closed.wait();
    write_at(fd, "by the last holder", 0);
    child_wrote.raise();
  });
  OK(close(fd));
  OK(unlink(file.c_str()));
  write_file(file, "another file");
  parent_closed.raise();
  child_wrote.wait();
  holder.join();
  CHECK_EQ(read_file(file), "another file");
}

POSIX_TEST(fsync_test, "fsync: data is safe by any descriptor, and fdatasync too") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  write_at(fd, "safe", 0);
  OK(fsync(fd));
  OK(fdatasync(fd));
  const Fd reader = OPEN(file.c_str(), O_RDONLY);
  OK(fsync(reader));
  const Fd synchronous = OPEN(file.c_str(), O_WRONLY | O_DSYNC);
  write_at(synchronous, "SAFE", 0);
  CHECK_EQ(read_file(file), "SAFE");
}

POSIX_TEST(opendir_test, "opendir: only directories, only with the right to read them") {
  write_file(dir + "/file", "");
  CHECK(opendir((dir + "/file").c_str()) == nullptr && errno == ENOTDIR);
  CHECK(opendir((dir + "/missing").c_str()) == nullptr && errno == ENOENT);
  OK(mkdir((dir + "/closed").c_str(), 0711));
  as_user(kAnna, [&] { CHECK(opendir((dir + "/closed").c_str()) == nullptr && errno == EACCES); });
  OK(chmod((dir + "/closed").c_str(), 0755));
  as_user(kAnna, [&] { CHECK_EQ(names_in(dir + "/closed").size(), 0u); });
}

POSIX_TEST(readdir_test, "readdir: every name once, with its type and inode number, and . and ..") {
  write_file(dir + "/file", "");
  OK(mkdir((dir + "/sub").c_str(), 0755));
  OK(symlink("file", (dir + "/link").c_str()));
  OK(mkfifo((dir + "/fifo").c_str(), 0600));
  const std::map<std::string, int> types = {
      {".", DT_DIR}, {"..", DT_DIR}, {"file", DT_REG}, {"sub", DT_DIR}, {"link", DT_LNK}, {"fifo", DT_FIFO}};
  std::map<std::string, int> found;
  DIR* const stream = opendir(dir.c_str());
  CHECK(stream != nullptr);
  while (const dirent* const entry = readdir(stream)) {
    CHECK(found.emplace(entry->d_name, entry->d_type).second);
    if (entry->d_name[0] != '.') CHECK_EQ(entry->d_ino, lstat_of(dir + "/" + entry->d_name).st_ino);
  }
  closedir(stream);
  CHECK(found == types);
}

POSIX_TEST(readdirplus_test, "readdirplus: attributes met in a listing are the files' own, also after they change") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  const auto path = [&](int i) { return dir + "/sub/" + std::to_string(i); };
  for (int i = 0; i < 300; ++i) write_file(path(i), std::string(static_cast<size_t>(i), 'x'), 0600);
  for (int round = 0; round < 2; ++round) {
    for (const std::string& name : names_in(dir + "/sub")) {
      const struct stat attr = stat_of(dir + "/sub/" + name);
      CHECK_EQ(attr.st_size, static_cast<off_t>(std::stoi(name) + round));
      CHECK_EQ(attr.st_mode & 0777, round == 0 ? 0600u : 0640u);
    }
    for (int i = 0; round == 0 && i < 300; ++i) {
      write_file(path(i), std::string(static_cast<size_t>(i) + 1, 'y'));
      OK(chmod(path(i).c_str(), 0640));
    }
  }
}

POSIX_TEST(releasedir_test, "releasedir: directories are opened and closed without end, and a removed one is empty") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  for (int i = 0; i < 2000; ++i) OK(closedir(opendir((dir + "/sub").c_str())));
  DIR* const stream = opendir((dir + "/sub").c_str());
  OK(rmdir((dir + "/sub").c_str()));
  CHECK(readdir(stream) == nullptr);
  OK(closedir(stream));
}

POSIX_TEST(fsyncdir_test, "fsyncdir: a directory's names are safe, and by fdatasync too") {
  OK(mkdir((dir + "/sub").c_str(), 0755));
  for (const std::string& path : {dir, dir + "/sub"}) {
    const Fd fd = OPEN(path.c_str(), O_RDONLY | O_DIRECTORY);
    OK(fsync(fd));
    OK(fdatasync(fd));
  }
}

POSIX_TEST(statfs_test, "statfs: the file system has room, files and names of 255 bytes") {
  write_file(dir + "/file", "");
  for (const std::string& path : {dir, dir + "/file"}) {
    struct statvfs answer;
    OK(statvfs(path.c_str(), &answer));
    CHECK(answer.f_blocks > 0 && answer.f_bavail > 0 && answer.f_files > 0);
    CHECK_EQ(answer.f_namemax, 255u);
  }
}

POSIX_TEST(setxattr_test, "setxattr: any bytes, made or replaced as the flags say") {
  const std::string file = dir + "/file";
  write_file(file, "");
  FAILS(setxattr(file.c_str(), "user.a", "x", 1, XATTR_REPLACE), ENODATA);
  OK(setxattr(file.c_str(), "user.a", "one", 3, XATTR_CREATE));
  FAILS(setxattr(file.c_str(), "user.a", "x", 1, XATTR_CREATE), EEXIST);
  OK(setxattr(file.c_str(), "user.a", "", 0, XATTR_REPLACE));
  CHECK_EQ(OK(getxattr(file.c_str(), "user.a", nullptr, 0)), 0);
  OK(symlink("file", (dir + "/link").c_str()));
  FAILS(lsetxattr((dir + "/link").c_str(), "user.a", "x", 1, 0), EPERM);
  as_user(kAnna, [&] { FAILS(setxattr(file.c_str(), "user.a", "x", 1, 0), EACCES); });
  const Fd fd = OPEN(file.c_str(), O_RDONLY);
  OK(fsetxattr(fd, "trusted.b", "root's", 6, 0));
}

POSIX_TEST(getxattr_test, "getxattr: the length first, then the value, and ERANGE when it has no room") {
  const std::string file = dir + "/file";
  write_file(file, "");
  std::string value(1500, '\0');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i);
  OK(setxattr(file.c_str(), "user.long", value.data(), value.size(), 0));
  CHECK_EQ(OK(getxattr(file.c_str(), "user.long", nullptr, 0)), static_cast<ssize_t>(value.size()));
  char room[2000];
  const ssize_t size = OK(getxattr(file.c_str(), "user.long", room, sizeof room));
  CHECK(std::string(room, static_cast<size_t>(size)) == value);
  FAILS(getxattr(file.c_str(), "user.long", room, 10), ERANGE);
  FAILS(getxattr(file.c_str(), "user.missing", room, 10), ENODATA);
}

POSIX_TEST(listxattr_test, "listxattr: the names that are set, of files and directories") {
  write_file(dir + "/file", "");
  OK(mkdir((dir + "/sub").c_str(), 0755));
  for (const std::string& path : {dir + "/file", dir + "/sub"}) {
    CHECK_EQ(listed_xattrs(path), "");
    OK(setxattr(path.c_str(), "user.a", "1", 1, 0));
    OK(setxattr(path.c_str(), "user.b", "2", 1, 0));
    CHECK_EQ(listed_xattrs(path), "user.a user.b ");
    char little[3];
    FAILS(listxattr(path.c_str(), little, sizeof little), ERANGE);
  }
}

POSIX_TEST(removexattr_test, "removexattr: the one named goes") {
  const std::string file = dir + "/file";
  write_file(file, "");
  OK(setxattr(file.c_str(), "user.a", "1", 1, 0));
  OK(setxattr(file.c_str(), "user.b", "2", 1, 0));
  OK(removexattr(file.c_str(), "user.a"));
  FAILS(removexattr(file.c_str(), "user.a"), ENODATA);
  CHECK_EQ(listed_xattrs(file), "user.b ");
}

POSIX_TEST(access_test, "access: the answer is what open and exec would meet") {
  const std::string file = dir + "/file";
  write_file(file, "", 0604);
  FAILS(access(file.c_str(), X_OK), EACCES);
  OK(access(file.c_str(), R_OK | W_OK));
  as_user(kAnna, [&] {
    OK(access(file.c_str(), R_OK));
    FAILS(access(file.c_str(), W_OK), EACCES);
    FAILS(access((dir + "/missing").c_str(), F_OK), ENOENT);
    OK(access(dir.c_str(), R_OK | W_OK | X_OK));
  });
  OK(chmod(file.c_str(), 0705));
  OK(access(file.c_str(), X_OK));
}

POSIX_TEST(fallocate_test, "fallocate: room is made, kept out of the size, punched and zeroed") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  OK(fallocate(fd, 0, 0, 8192));
  CHECK_EQ(stat_of(file).st_size, 8192);
  OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8192, 65536));
  CHECK_EQ(stat_of(file).st_size, 8192);
  CHECK(stat_of(file).st_blocks >= (8192 + 65536) / 512);
  write_at(fd, std::string(8192, 'x'), 0);
  OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
  OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 10, 10));
  std::string model(8192, 'x');
  model.replace(4096, 4096, std::string(4096, '\0'));
  model.replace(10, 10, std::string(10, '\0'));
  CHECK(read_file(file) == model);
  FAILS(fallocate(fd, 0, 0, 0), EINVAL);
  const Fd reader = OPEN(file.c_str(), O_RDONLY);
  FAILS(fallocate(reader, 0, 0, 10), EBADF);
}

POSIX_TEST(lseek_test, "lseek: data and holes are told apart, and behind the end is ENXIO") {
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  OK(ftruncate(fd, 1 << 20));
  write_at(fd, std::string(4096, 'x'), 256 << 10);
  CHECK_EQ(OK(lseek(fd, 0, SEEK_DATA)), 256 << 10);
  CHECK_EQ(OK(lseek(fd, 256 << 10, SEEK_HOLE)), (256 << 10) + 4096);
  CHECK_EQ(OK(lseek(fd, 0, SEEK_HOLE)), 0);
  FAILS(lseek(fd, 1 << 20, SEEK_DATA), ENXIO);
  FAILS(lseek(fd, (256 << 10) + 4096, SEEK_DATA), ENXIO);
  CHECK_EQ(OK(lseek(fd, -10, SEEK_END)), (1 << 20) - 10);
  FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
}
