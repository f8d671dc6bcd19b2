#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>
#include <cstdio>

#include "os_calls.h"

namespace obfs::os {

namespace {

/** The path by which calls that take no descriptor reach the file of one: the kernel jumps to it, it looks nothing up. */
class DescriptorPath {
 public:
  explicit DescriptorPath(int fd) { snprintf(text_, sizeof text_, "/proc/self/fd/%d", fd); }
  operator const char*() const { return text_; }

 private:
  char text_[32];
};

Result<UniqueFd> owned(int fd) {
  if (fd < 0) return last_errno();
  return UniqueFd(fd);
}

timespec time_of(const statx_timestamp& time) { return {time.tv_sec, static_cast<long>(time.tv_nsec)}; }

struct stat attributes_of(const struct statx& found) {
  struct stat attr = {};
  attr.st_dev = makedev(found.stx_dev_major, found.stx_dev_minor);
  attr.st_ino = found.stx_ino;
  attr.st_mode = found.stx_mode;
  attr.st_nlink = found.stx_nlink;
  attr.st_uid = found.stx_uid;
  attr.st_gid = found.stx_gid;
  attr.st_rdev = makedev(found.stx_rdev_major, found.stx_rdev_minor);
  attr.st_size = static_cast<off_t>(found.stx_size);
  attr.st_blksize = found.stx_blksize;
  attr.st_blocks = static_cast<blkcnt_t>(found.stx_blocks);
  attr.st_atim = time_of(found.stx_atime);
  attr.st_mtim = time_of(found.stx_mtime);
  attr.st_ctim = time_of(found.stx_ctime);
  return attr;
}

template <typename Read>
Result<std::string> read_attribute(size_t size, Read read) {
  std::string value(size, '\0');
  const ssize_t length = read(value.data(), size);
  if (length < 0) return last_errno();
  value.resize(static_cast<size_t>(length));
  return value;
}

}  // namespace

const int kNameOnly = O_PATH;
const int kNoAttribute = ENODATA;
const mode_t kOpenToAll = 0707;
const gid_t kGroupOfNobody = static_cast<gid_t>(-2);

int access_flags(int flags) {
  return (flags & (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC | O_NOATIME)) | O_NOCTTY | O_NONBLOCK;
}

bool is_plain_read(int flags) { return (flags & (O_ACCMODE | O_NOATIME)) == O_RDONLY; }

bool is_local(int fd) {
  struct statfs found;
  if (fstatfs(fd, &found) != 0) return false;
  switch (static_cast<uint32_t>(found.f_type)) {
    case AFS_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case V9FS_MAGIC:
      return false;
    default:
      return true;
  }
}

Result<UniqueFd> open_at(int directory, const char* name, int flags) {
  return owned(openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC));
}

Result<UniqueFd> open_beneath(int root, const char* path, int flags) {
  open_how how = {};
  // With O_NOFOLLOW the last component may be a link, named but not followed; RESOLVE_NO_SYMLINKS allows that for O_PATH.
  how.flags = static_cast<uint64_t>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return owned(static_cast<int>(syscall(SYS_openat2, root, path, &how, sizeof how)));
}

Result<UniqueFd> reopen(int fd, int flags) { return owned(open(DescriptorPath(fd), flags | O_CLOEXEC)); }

Result<Description> describe(int directory, const char* name) {
  struct statx found;
  const int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  if (statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME, &found) != 0) return last_errno();
  return Description{attributes_of(found), (found.stx_mask & STATX_BTIME) == 0 ? timespec{} : time_of(found.stx_btime)};
}

timespec accessed_at(const struct stat& attr) { return attr.st_atim; }
timespec modified_at(const struct stat& attr) { return attr.st_mtim; }
timespec changed_at(const struct stat& attr) { return attr.st_ctim; }
void set_all_times(struct stat& attr, timespec time) { attr.st_atim = attr.st_mtim = attr.st_ctim = time; }

Status set_mode(int fd, mode_t mode) { return status_of(chmod(DescriptorPath(fd), mode)); }

Status set_owner(int fd, uid_t uid, gid_t gid) { return status_of(fchownat(fd, "", uid, gid, AT_EMPTY_PATH)); }

Status set_times(int fd, const timespec times[2]) {
  return status_of(utimensat(AT_FDCWD, DescriptorPath(fd), times, 0));
}

Result<std::string> read_link(int fd) {
  char text[PATH_MAX];
  const ssize_t length = readlinkat(fd, "", text, sizeof text);
  if (length < 0) return last_errno();
  return std::string(text, static_cast<size_t>(length));
}

Status link_to(int fd, int directory, const char* name) {
  return status_of(linkat(AT_FDCWD, DescriptorPath(fd), directory, name, AT_SYMLINK_FOLLOW));
}

static_assert(kNoReplace == RENAME_NOREPLACE && kExchange == RENAME_EXCHANGE);

Status rename_at(int from, const char* name, int to, const char* new_name, unsigned flags) {
  return status_of(renameat2(from, name, to, new_name, flags));
}

Status allocate(int fd, int mode, off_t offset, off_t length) { return status_of(fallocate(fd, mode, offset, length)); }

Status sync_data(int fd) { return status_of(fdatasync(fd)); }

Result<std::string> get_xattr(int fd, const char* name, size_t size) {
  const DescriptorPath path(fd);
  return read_attribute(size, [&](char* value, size_t room) { return getxattr(path, name, value, room); });
}

Result<std::string> list_xattrs(int fd, size_t size) {
  const DescriptorPath path(fd);
  return read_attribute(size, [&](char* value, size_t room) { return listxattr(path, value, room); });
}

Status set_xattr(int fd, const char* name, const char* value, size_t size, int flags) {
  return status_of(setxattr(DescriptorPath(fd), name, value, size, flags));
}

Status remove_xattr(int fd, const char* name) { return status_of(removexattr(DescriptorPath(fd), name)); }

}  // namespace obfs::os
