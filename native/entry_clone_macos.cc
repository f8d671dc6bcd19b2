#include <copyfile.h>
#include <fcntl.h>
#include <sys/clonefile.h>
#include <unistd.h>

#include "entry_clone.h"

namespace obfs::entry_clone {

namespace {

constexpr mode_t kModeBits = 07777;
constexpr mode_t kSetIdBits = S_ISUID | S_ISGID;

/** clonefile keeps everything but set-id bits. */
CallStatus clone_in_place(DirectoryPair at, const char* name, const struct stat& attr) {
  if (clonefileat(at.from, name, at.to, name, CLONE_NOFOLLOW) != 0) return call_failed("clonefile");
  if (!S_ISREG(attr.st_mode) || (attr.st_mode & kSetIdBits) == 0) return {};
  if (fchmodat(at.to, name, attr.st_mode & kModeBits, AT_SYMLINK_NOFOLLOW) != 0) return call_failed("fchmodat");
  return {};
}

CallStatus make_special(DirectoryPair at, const char* name, const struct stat& attr) {
  if (mknodat(at.to, name, attr.st_mode, attr.st_rdev) != 0) return call_failed("mknod");
  if (geteuid() == 0 && fchownat(at.to, name, attr.st_uid, attr.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return call_failed("fchownat");
  }
  if (fchmodat(at.to, name, attr.st_mode & kModeBits, AT_SYMLINK_NOFOLLOW) != 0) return call_failed("fchmodat");
  const timespec times[] = {attr.st_atimespec, attr.st_mtimespec};
  if (utimensat(at.to, name, times, AT_SYMLINK_NOFOLLOW) != 0) return call_failed("utimensat");
  return {};
}

}  // namespace

/** The umask is the process's here; modes of special files are set afterwards, and clones do not ask it. */
CallStatus prepare_thread() { return {}; }

CallStatus clone_file(DirectoryPair at, const char* name, const struct stat& attr, const Content& content) {
  if (content.is_copied) return CallFailure{ENOTSUP, "copyfile"};
  if (S_ISREG(attr.st_mode) || S_ISLNK(attr.st_mode)) return clone_in_place(at, name, attr);
  // A socket is nothing without the process that listens, and cannot be made by name.
  return S_ISSOCK(attr.st_mode) ? CallStatus() : make_special(at, name, attr);
}

CallStatus forget_inherited(int) { return {}; }

CallStatus finish_directory(DirectoryPair directory, const struct stat& attr) {
  if (geteuid() == 0 && fchown(directory.to, attr.st_uid, attr.st_gid) != 0) return call_failed("fchown");
  if (fcopyfile(directory.from, directory.to, nullptr, COPYFILE_ACL | COPYFILE_XATTR) != 0) {
    return call_failed("fcopyfile");
  }
  if (fchmod(directory.to, attr.st_mode & kModeBits) != 0) return call_failed("fchmod");
  return restore_times(directory.to, attr);
}

CallStatus restore_times(int fd, const struct stat& attr) {
  const timespec times[] = {attr.st_atimespec, attr.st_mtimespec};
  if (futimens(fd, times) != 0) return call_failed("utimensat");
  return {};
}

}  // namespace obfs::entry_clone
