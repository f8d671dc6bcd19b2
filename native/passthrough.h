#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "inode_table.h"
#include "kernel_io.h"

namespace obfs {

/**
 * Which open files the kernel reads and writes by itself, without asking. All who have a file open at the same time must do it the same
 * way, or the kernel refuses the second: whoever comes first decides, the others follow until the last has closed.
 */
class Passthrough {
 public:
  /** How one file is read and written. Held by each who has it open. */
  class File;

  explicit Passthrough(KernelIo& kernel_io) : kernel_io_(kernel_io) {}

  /**
   * To be called for each who opens a file, before the reply. `fd` is any descriptor of it. Whoever `prefers_pages` has it read through
   * the kernel's own pages, which is opened with less work: good for small files that are opened often.
   */
  std::shared_ptr<const File> join(NodeId id, int fd, bool prefers_pages);

 private:
  void leave(NodeId id);

  KernelIo& kernel_io_;
  std::mutex mutex_;
  std::unordered_map<NodeId, std::weak_ptr<const File>> files_;  ///< guarded by mutex_
};

class Passthrough::File {
 public:
  File(Passthrough& of, NodeId id, int32_t backing) : of_(of), id_(id), backing_(backing) {}
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  /** Whether the kernel does it by itself. */
  bool is_direct() const { return backing_ != 0; }
  /** What the kernel calls the backing file; 0 for none. */
  int32_t backing() const { return backing_; }

 private:
  Passthrough& of_;
  const NodeId id_;
  const int32_t backing_;
};

}  // namespace obfs
