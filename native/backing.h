#pragma once

#include <sys/stat.h>

#include <memory>
#include <mutex>
#include <vector>

#include "file_key.h"
#include "result.h"
#include "unique_fd.h"

namespace obfs {

/** A file that was found on the backing file system: a descriptor (O_PATH, or as opened), its attributes and its key. */
struct FoundFile {
  UniqueFd fd;
  struct stat attr;
  FileKey key;
};

/**
 * How the files below one directory are known while no descriptor of them is open. Every method may be called from several
 * threads at once, with the daemon's own identity. Nothing here follows a symbolic link.
 */
class Backing {
 public:
  virtual ~Backing() = default;

  /** Attributes and key of an open file (O_PATH will do). */
  virtual Result<FoundFile> identify(UniqueFd fd) = 0;

  /** The key of `name` in a directory, without opening it. */
  virtual Result<FileKey> key_of(int directory_fd, const char* name) = 0;

  /** Opens a known file with open(2) flags. ESTALE when its last name is gone and nothing holds it. */
  virtual Result<UniqueFd> open(const FileKey& key, int flags) = 0;
};

/**
 * Knows files by name_to_handle_at(2): no descriptor a file, and a handle is never reused for another.
 * `root` is any descriptor of a directory. EOPNOTSUPP when its file system has no handles.
 */
Result<std::unique_ptr<Backing>> make_handles_backing(int root);

}  // namespace obfs
