#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <string>

#include "result.h"
#include "unique_fd.h"

/**
 * The system calls that Linux and macOS spell differently. "A descriptor" here is one that names a file without opening it
 * (O_PATH on Linux, O_EVTONLY | O_SYMLINK on macOS); a descriptor of an open file will do as well. Nothing follows a symbolic link.
 */
namespace obfs::os {

/** Flags of open(2) for a descriptor that only names a file. */
extern const int kNameOnly;

/** Of a caller's open flags: how it reads and writes, and nothing that creates, truncates or demands aligned buffers. */
int access_flags(int flags);

/** Opens `name` (one component) in a directory. */
Result<UniqueFd> open_at(int directory, const char* name, int flags);

/** Opens a path below `root`, none of whose components may be a link. */
Result<UniqueFd> open_beneath(int root, const char* path, int flags);

/** Opens anew the file that a descriptor names. */
Result<UniqueFd> reopen(int fd, int flags);

/** When the file was created; zero where the file system does not tell. */
Result<timespec> birth_time(int fd);

timespec accessed_at(const struct stat& attr);
timespec modified_at(const struct stat& attr);
timespec changed_at(const struct stat& attr);
void set_all_times(struct stat& attr, timespec time);

Status set_mode(int fd, mode_t mode);
Status set_owner(int fd, uid_t uid, gid_t gid);
Status set_times(int fd, const timespec times[2]);
Result<std::string> read_link(int fd);

/** Gives the file that a descriptor names another name. */
Status link_to(int fd, int directory, const char* name);
/** rename(2) with FUSE's flags: 1 no replace, 2 exchange. */
Status rename_at(int from, const char* name, int to, const char* new_name, unsigned flags);
constexpr unsigned kNoReplace = 1;
constexpr unsigned kExchange = 2;

Status allocate(int fd, int mode, off_t offset, off_t length);
Status sync_data(int fd);

/** Extended attributes; with `size` 0 the value is as long as the real one, and meaningless. */
Result<std::string> get_xattr(int fd, const char* name, size_t size);
Result<std::string> list_xattrs(int fd, size_t size);
Status set_xattr(int fd, const char* name, const char* value, size_t size, int flags);
Status remove_xattr(int fd, const char* name);

/** What getxattr(2) says of an attribute that is not there. */
extern const int kNoAttribute;

}  // namespace obfs::os
