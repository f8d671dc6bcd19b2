#pragma once

#include <atomic>
#include <cstdint>

#include "result.h"

struct fuse_session;

namespace obfs {

/**
 * What the kernel offers and libfuse before 3.17 neither asks for nor tells of, done on the requests and replies themselves as
 * they pass. On Linux:
 *
 * - PARALLEL_DIROPS: without it the lookups in one directory wait for each other, and every caller's walk begins in one.
 * - HANDLE_KILLPRIV_V2: without it every write(2) asks for the file's capabilities first. With it the set-id bits of a file that
 *   is written to or truncated are ours to clear, where the request says so.
 *
 * Where the kernel offers neither, or elsewhere, nothing is changed. One for a session, which it must outlive.
 */
class KernelIo {
 public:
  /** To be called between mounting and serving. */
  Status attach(fuse_session* session);

  /** Whether the request that this thread took last is to clear the file's set-id bits. */
  static bool request_clears_set_ids();

  /** What the hooks found; for them alone. */
  std::atomic<uint64_t> init_request = 0;  ///< the request whose reply is still to be edited; 0: none
  std::atomic<uint32_t> offered = 0;       ///< the features that the kernel offered in it
};

}  // namespace obfs
