#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstring>
#include <string>

#include "entry_clone.h"
#include "unique_fd.h"

namespace obfs::entry_clone {

namespace {

constexpr mode_t kModeBits = 07777;
constexpr mode_t kSetIdBits = S_ISUID | S_ISGID;
/** What st_blocks counts in. */
constexpr off_t kBlockBytes = 512;

bool may_give_away() {
  static const bool is_root = geteuid() == 0;
  return is_root;
}

/** Copies every extended attribute, access control lists among them. The arguments are the calls that list, read and set. */
template <typename List, typename Get, typename Set>
CallStatus copy_xattrs(List list, Get get, Set set) {
  const ssize_t room = list(nullptr, 0);
  if (room == 0 || (room < 0 && errno == EOPNOTSUPP)) return {};
  if (room < 0) return call_failed("listxattr");
  std::string names(static_cast<size_t>(room), '\0');
  const ssize_t length = list(names.data(), names.size());
  if (length < 0) return call_failed("listxattr");
  std::string value(XATTR_SIZE_MAX, '\0');
  for (const char* name = names.data(); name < names.data() + length; name += strlen(name) + 1) {
    const ssize_t size = get(name, value.data(), value.size());
    if (size < 0) return call_failed("getxattr");
    if (set(name, value.data(), static_cast<size_t>(size)) != 0) return call_failed("setxattr");
  }
  return {};
}

CallStatus copy_xattrs(int from, int to) {
  return copy_xattrs(
      [&](char* names, size_t room) { return flistxattr(from, names, room); },
      [&](const char* name, void* value, size_t room) { return fgetxattr(from, name, value, room); },
      [&](const char* name, const void* value, size_t size) { return fsetxattr(to, name, value, size, 0); });
}

/** A name in a directory as a path, for calls that take no descriptor and follow no link at its end. */
std::string path_in(int directory, const char* name) {
  return "/proc/self/fd/" + std::to_string(directory) + "/" + name;
}

CallStatus copy_xattrs_of_name(DirectoryPair at, const char* name) {
  const std::string from = path_in(at.from, name);
  const std::string to = path_in(at.to, name);
  return copy_xattrs(
      [&](char* names, size_t room) { return llistxattr(from.c_str(), names, room); },
      [&](const char* attribute, void* value, size_t room) { return lgetxattr(from.c_str(), attribute, value, room); },
      [&](const char* attribute, const void* value, size_t size) {
        return lsetxattr(to.c_str(), attribute, value, size, 0);
      });
}

/** Owner before mode and attributes: changing it clears set-id bits and capabilities. `mode` is what the file has now. */
CallStatus copy_attributes(int from, int to, const struct stat& attr, mode_t mode) {
  if (may_give_away() && (attr.st_uid != 0 || attr.st_gid != 0) && fchown(to, attr.st_uid, attr.st_gid) != 0) {
    return call_failed("fchown");
  }
  const mode_t wanted = attr.st_mode & kModeBits;
  if ((wanted != mode || (wanted & kSetIdBits) != 0) && fchmod(to, wanted) != 0) return call_failed("fchmod");
  if (const CallStatus failed = copy_xattrs(from, to)) return failed;
  return restore_times(to, attr);
}

/** Files without copy on write (chattr +C, on btrfs) share their storage only with their like, and only empty ones become that. */
bool forgo_copy_on_write(int from, int to) {
  int flags = 0;
  if (ioctl(from, FS_IOC_GETFLAGS, &flags) != 0 || (flags & FS_NOCOW_FL) == 0) return false;
  int own_flags = 0;
  if (ioctl(to, FS_IOC_GETFLAGS, &own_flags) != 0) return false;
  own_flags |= FS_NOCOW_FL;
  return ioctl(to, FS_IOC_SETFLAGS, &own_flags) == 0;
}

CallStatus share_content(int from, int to) {
  if (ioctl(to, FICLONE, from) == 0) return {};
  if (errno == EINVAL && forgo_copy_on_write(from, to) && ioctl(to, FICLONE, from) == 0) return {};
  return call_failed("FICLONE");
}

/** So much is copied between two looks at whether to go on. */
constexpr off_t kPieceBytes = 8 << 20;

/** The same bytes at the same place; both ends of the range lie in the file. */
CallStatus copy_range(int from, int to, off_t begin, off_t end, const std::atomic<bool>& is_cancelled) {
  if (begin > 0 && lseek(to, begin, SEEK_SET) < 0) return call_failed("lseek");
  while (begin < end) {
    if (is_cancelled) return CallFailure{ECANCELED, "clone"};
    const ssize_t copied = sendfile(to, from, &begin, static_cast<size_t>(std::min(end - begin, kPieceBytes)));
    if (copied < 0) return call_failed("sendfile");
    if (copied == 0) return CallFailure{EIO, "sendfile"};  // it has become shorter
  }
  return {};
}

/** What was never written takes no room in the copy either. */
CallStatus copy_with_holes(int from, int to, off_t size, const std::atomic<bool>& is_cancelled) {
  for (off_t end = 0; end < size;) {
    const off_t begin = lseek(from, end, SEEK_DATA);
    if (begin < 0 && errno == ENXIO) break;
    if (begin < 0) return call_failed("lseek");
    end = lseek(from, begin, SEEK_HOLE);
    if (end < 0) return call_failed("lseek");
    if (const CallStatus failed = copy_range(from, to, begin, end, is_cancelled)) return failed;
  }
  if (ftruncate(to, size) != 0) return call_failed("ftruncate");
  return {};
}

CallStatus copy_content(int from, int to, const struct stat& attr, const std::atomic<bool>& is_cancelled) {
  const bool has_holes = attr.st_blocks < attr.st_size / kBlockBytes;
  if (has_holes) return copy_with_holes(from, to, attr.st_size, is_cancelled);
  return copy_range(from, to, 0, attr.st_size, is_cancelled);
}

CallStatus clone_regular(DirectoryPair at, const char* name, const struct stat& attr, const Content& content) {
  // A copy reads: the original's time of last access is not to change.
  const int no_trace = content.is_copied && may_give_away() ? O_NOATIME : 0;
  const UniqueFd from(openat(at.from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | no_trace));
  if (!from.is_open()) return call_failed("open");
  const mode_t mode = attr.st_mode & kModeBits;
  const UniqueFd to(openat(at.to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!to.is_open()) return call_failed("open");
  if (attr.st_size > 0) {
    const CallStatus failed = content.is_copied ? copy_content(from.get(), to.get(), attr, content.is_cancelled)
                                                : share_content(from.get(), to.get());
    if (failed) return failed;
  }
  return copy_attributes(from.get(), to.get(), attr, mode);
}

CallStatus copy_attributes_of_name(DirectoryPair at, const char* name, const struct stat& attr) {
  if (may_give_away() && fchownat(at.to, name, attr.st_uid, attr.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return call_failed("fchownat");
  }
  if (!S_ISLNK(attr.st_mode) && fchmodat(at.to, name, attr.st_mode & kModeBits, 0) != 0) return call_failed("fchmodat");
  if (const CallStatus failed = copy_xattrs_of_name(at, name)) return failed;
  const timespec times[] = {attr.st_atim, attr.st_mtim};
  if (utimensat(at.to, name, times, AT_SYMLINK_NOFOLLOW) != 0) return call_failed("utimensat");
  return {};
}

CallStatus copy_link(DirectoryPair at, const char* name) {
  char text[PATH_MAX];
  const ssize_t length = readlinkat(at.from, name, text, sizeof text - 1);
  if (length < 0) return call_failed("readlink");
  text[length] = '\0';
  if (symlinkat(text, at.to, name) != 0) return call_failed("symlink");
  return {};
}

}  // namespace

CallStatus prepare_thread() {
  if (unshare(CLONE_FS) != 0) return call_failed("unshare");
  umask(0);
  return {};
}

CallStatus clone_file(DirectoryPair at, const char* name, const struct stat& attr, const Content& content) {
  if (S_ISREG(attr.st_mode)) return clone_regular(at, name, attr, content);
  if (S_ISLNK(attr.st_mode)) {
    if (const CallStatus failed = copy_link(at, name)) return failed;
  } else if (mknodat(at.to, name, attr.st_mode, attr.st_rdev) != 0) {
    return call_failed("mknod");
  }
  return copy_attributes_of_name(at, name, attr);
}

CallStatus forget_inherited(int directory) {
  const int removed = fremovexattr(directory, "system.posix_acl_default");
  if (removed != 0 && errno != ENODATA && errno != EOPNOTSUPP) return call_failed("removexattr");
  return {};
}

CallStatus finish_directory(DirectoryPair directory, const struct stat& attr) {
  return copy_attributes(directory.from, directory.to, attr, 0);
}

CallStatus restore_times(int fd, const struct stat& attr) {
  const timespec times[] = {attr.st_atim, attr.st_mtim};
  if (futimens(fd, times) != 0) return call_failed("utimensat");
  return {};
}

}  // namespace obfs::entry_clone
