#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <optional>

/** How Linux and macOS clone one entry of a directory: what tree_clone is made of. */
namespace obfs::entry_clone {

struct CallFailure {
  int error;
  const char* syscall;
};
using CallStatus = std::optional<CallFailure>;

/** A directory of the source, and its counterpart in the target. */
struct DirectoryPair {
  int from;
  int to;
};

/** How files come by what is in them. */
struct Content {
  /** Or else shared with the original. */
  bool is_copied;
  /** Once set, a copy ends with ECANCELED. */
  const std::atomic<bool>& is_cancelled;
};

/** To be called once in each thread that clones: it makes files with exactly the modes it asks for. Not in a thread that does other work. */
CallStatus prepare_thread();

/** Clones the file `name`, which is no directory and whose attributes are `attr`, to the same name. ENOTSUP where it cannot be copied. */
CallStatus clone_file(DirectoryPair at, const char* name, const struct stat& attr, const Content& content);

/** Makes sure that what is made in a directory gets nothing but what its maker gives it. */
CallStatus forget_inherited(int directory);

/** Gives a directory its counterpart's attributes, `attr` and others; comes after its content. */
CallStatus finish_directory(DirectoryPair directory, const struct stat& attr);

/** Gives a directory again the times that it had, after something was added to it. */
CallStatus restore_times(int directory, const struct stat& attr);

inline CallFailure call_failed(const char* syscall) { return {errno, syscall}; }

}  // namespace obfs::entry_clone
