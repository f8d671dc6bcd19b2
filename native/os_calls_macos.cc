#include <fcntl.h>
#include <sys/attr.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>
#include <cstdio>

#include "os_calls.h"

namespace obfs::os {

namespace {

Result<UniqueFd> owned(int fd) {
  if (fd < 0) return last_errno();
  return UniqueFd(fd);
}

/** Where a descriptor's file is now. There is no way back from a descriptor to its file but by its path. */
Result<std::string> path_of(int fd) {
  char path[MAXPATHLEN];
  if (fcntl(fd, F_GETPATH, path) != 0) return last_errno();
  return std::string(path);
}

bool is_same_file(int a, int b) {
  struct stat left, right;
  return fstat(a, &left) == 0 && fstat(b, &right) == 0 && left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

template <typename Read>
Result<std::string> read_attribute(size_t size, Read read) {
  std::string value(size, '\0');
  const ssize_t length = read(size == 0 ? nullptr : value.data(), size);
  if (length < 0) return last_errno();
  value.resize(static_cast<size_t>(length));
  return value;
}

}  // namespace

const int kNameOnly = O_EVTONLY | O_SYMLINK;
const int kNoAttribute = ENOATTR;
const mode_t kOpenToAll = 0777;
const gid_t kGroupOfNobody = 0;

int access_flags(int flags) { return (flags & (O_ACCMODE | O_APPEND | O_SYNC)) | O_NOCTTY | O_NONBLOCK; }

// O_SYMLINK and O_NOFOLLOW exclude each other: the one names a link, the other refuses it.
bool is_plain_read(int flags) { return (flags & O_ACCMODE) == O_RDONLY; }

bool is_local(int fd) {
  struct statfs found;
  return fstatfs(fd, &found) == 0 && (found.f_flags & MNT_LOCAL) != 0;
}

Result<UniqueFd> open_at(int directory, const char* name, int flags) {
  const int no_follow = (flags & O_SYMLINK) != 0 ? 0 : O_NOFOLLOW;
  return owned(openat(directory, name, flags | no_follow | O_CLOEXEC));
}

Result<UniqueFd> open_beneath(int root, const char* path, int flags) {
  const int no_follow = (flags & O_SYMLINK) != 0 ? 0 : O_NOFOLLOW_ANY;
  return owned(openat(root, path, flags | no_follow | O_CLOEXEC));
}

Result<UniqueFd> reopen(int fd, int flags) {
  const auto path = path_of(fd);
  if (!path.ok()) return path.failure();
  auto opened = owned(open(path->c_str(), flags | O_NOFOLLOW_ANY | O_CLOEXEC));
  if (opened.ok() && !is_same_file(opened->get(), fd)) return Errno{ESTALE};
  return opened;
}

Result<Description> describe(int directory, const char* name) {
  struct stat attr;
  const bool is_name = *name != '\0';
  const int done = is_name ? fstatat(directory, name, &attr, AT_SYMLINK_NOFOLLOW) : fstat(directory, &attr);
  if (done != 0) return last_errno();
  return Description{attr, attr.st_birthtimespec};
}

timespec accessed_at(const struct stat& attr) { return attr.st_atimespec; }
timespec modified_at(const struct stat& attr) { return attr.st_mtimespec; }
timespec changed_at(const struct stat& attr) { return attr.st_ctimespec; }
void set_all_times(struct stat& attr, timespec time) {
  attr.st_atimespec = attr.st_mtimespec = attr.st_ctimespec = time;
}

Status set_mode(int fd, mode_t mode) { return status_of(fchmod(fd, mode)); }
Status set_owner(int fd, uid_t uid, gid_t gid) { return status_of(fchown(fd, uid, gid)); }
Status set_times(int fd, const timespec times[2]) { return status_of(futimens(fd, times)); }

Result<std::string> read_link(int fd) {
  const auto path = path_of(fd);
  if (!path.ok()) return path.failure();
  char text[MAXPATHLEN];
  const ssize_t length = readlink(path->c_str(), text, sizeof text);
  if (length < 0) return last_errno();
  return std::string(text, static_cast<size_t>(length));
}

Status link_to(int fd, int directory, const char* name) {
  const auto path = path_of(fd);
  if (!path.ok()) return path.failure();
  return status_of(linkat(AT_FDCWD, path->c_str(), directory, name, 0));
}

Status rename_at(int from, const char* name, int to, const char* new_name, unsigned flags) {
  unsigned native = 0;
  if ((flags & kNoReplace) != 0) native |= RENAME_EXCL;
  if ((flags & kExchange) != 0) native |= RENAME_SWAP;
  return status_of(renameatx_np(from, name, to, new_name, native));
}

Status allocate(int fd, int mode, off_t offset, off_t length) {
  if (mode != 0) return Errno{ENOTSUP};
  fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, 0, 0};
  struct stat attr;
  if (fstat(fd, &attr) != 0) return last_errno();
  if (offset + length <= attr.st_size) return Status();
  store.fst_length = offset + length - attr.st_size;
  if (fcntl(fd, F_PREALLOCATE, &store) != 0) return last_errno();
  return status_of(ftruncate(fd, offset + length));
}

Status sync_data(int fd) { return status_of(fsync(fd)); }

Result<std::string> get_xattr(int fd, const char* name, size_t size) {
  return read_attribute(size, [&](char* value, size_t room) { return fgetxattr(fd, name, value, room, 0, 0); });
}

Result<std::string> list_xattrs(int fd, size_t size) {
  return read_attribute(size, [&](char* value, size_t room) { return flistxattr(fd, value, room, 0); });
}

Status set_xattr(int fd, const char* name, const char* value, size_t size, int flags) {
  return status_of(fsetxattr(fd, name, value, size, 0, flags));
}

Status remove_xattr(int fd, const char* name) { return status_of(fremovexattr(fd, name, 0)); }

}  // namespace obfs::os
