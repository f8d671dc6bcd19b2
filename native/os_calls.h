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

/** Whether open flags ask for nothing but reading, so that one descriptor serves all who do. */
bool is_plain_read(int flags);

/** Whether the file system of a descriptor is this machine's own, which has nothing to report when a file is closed. */
bool is_local(int fd);

/** Opens `name` (one component) in a directory. */
Result<UniqueFd> open_at(int directory, const char* name, int flags);

/** Opens a path below `root`, none of whose components may be a link. */
Result<UniqueFd> open_beneath(int root, const char* path, int flags);

/** Opens anew the file that a descriptor names. */
Result<UniqueFd> reopen(int fd, int flags);

/** A file's attributes, and when it was created: zero where the file system does not tell. */
struct Description {
  struct stat attr;
  timespec born;
};

/** Of `name` in a directory; with "", of the file that the descriptor names. */
Result<Description> describe(int directory, const char* name);

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

/**
 * Mode and group of a directory that every caller may use. On Linux a group's rights make the kernel ask for the access control
 * list, and of a mount's root it asks at every walk; a group without rights that nobody is a member of spares the request.
 */
extern const mode_t kOpenToAll;
extern const gid_t kGroupOfNobody;

/** What getxattr(2) says of an attribute that is not there. */
extern const int kNoAttribute;

}  // namespace obfs::os
