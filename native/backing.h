#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>

#include "file_key.h"
#include "result.h"
#include "unique_fd.h"

namespace obfs {

/** A file that was found on the backing file system. */
struct FoundFile {
  UniqueFd fd;  ///< names it, or is open; closed where the backing had no need of one
  struct stat attr;
  FileKey key;
};

/** How the files below one directory are known while no descriptor of them is open. */
enum class BackingKind {
  kAuto,         ///< handles where the file system has them, else paths
  kHandles,      ///< by name_to_handle_at(2): no descriptor a file, whatever is renamed around the mount (Linux)
  kDescriptors,  ///< by a descriptor each: bounded by the limit of open files
  kPaths,        ///< by their names below the tree's root: no descriptor a file, everywhere
};

/** What a node needs the table of nodes to keep for its backing. */
enum class NodeMemory { kNothing, kNames, kDescriptor };

/**
 * One way of knowing the files below a directory. Every method may be called from several threads at once, with the daemon's own
 * identity. Nothing here follows a symbolic link.
 */
class Backing {
 public:
  virtual ~Backing() = default;

  virtual NodeMemory memory() const = 0;

  /** Attributes and key of a file. */
  virtual Result<FoundFile> identify(UniqueFd fd) = 0;

  /** The same of `name` in a directory. */
  virtual Result<FoundFile> look_up(int directory_fd, const char* name);

  /** The key of `name` in a directory. */
  virtual Result<FileKey> key_of(int directory_fd, const char* name) = 0;

  /**
   * Opens a known file with open(2) flags. `path` is its path below the root, given where `memory` asks for names.
   * ESTALE when it is not to be found there any more.
   */
  virtual Result<UniqueFd> open(const FileKey& key, const std::string& path, int flags) = 0;
};

/** `root` is any descriptor of a directory, and must stay open as long as the backing. EOPNOTSUPP when it cannot be known that way. */
Result<std::unique_ptr<Backing>> make_backing(BackingKind kind, int root);

Result<std::unique_ptr<Backing>> make_handles_backing(int root);
std::unique_ptr<Backing> make_descriptors_backing();
std::unique_ptr<Backing> make_paths_backing(int root);

}  // namespace obfs
