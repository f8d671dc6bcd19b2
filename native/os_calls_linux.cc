#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
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

int access_flags(int flags) {
  return (flags & (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC | O_NOATIME)) | O_NOCTTY | O_NONBLOCK;
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

Result<timespec> birth_time(int fd) {
  struct statx attr;
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BTIME, &attr) != 0) return last_errno();
  if ((attr.stx_mask & STATX_BTIME) == 0) return timespec{};
  return timespec{attr.stx_btime.tv_sec, static_cast<long>(attr.stx_btime.tv_nsec)};
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
