#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "result.h"

struct fuse_session;

namespace obfs {

class RequestRings;

/**
 * What the kernel offers and libfuse before 3.17 neither asks for nor tells of, done on the requests and replies themselves as
 * they pass. On Linux:
 *
 * - PARALLEL_DIROPS: without it the lookups in one directory wait for each other, and every caller's walk begins in one.
 * - HANDLE_KILLPRIV_V2: without it every write(2) asks for the file's capabilities first. With it the set-id bits of a file that
 *   is written to or truncated are ours to clear, where the request says so.
 * - PASSTHROUGH, where it is wanted: reads and writes of an open file go to the backing file at once, and come here no more.
 * - OVER_IO_URING, where root has enabled it: see RequestRings.
 *
 * What the kernel does not offer is not asked for, and elsewhere nothing is changed. One for a session, which it must outlive.
 */
class KernelIo {
 public:
  /** To be called between mounting and serving. */
  Status attach(fuse_session* session, bool wants_passthrough);

  /** To be called when the session's loop has ended and its mount is gone: no request is being handled after that. */
  void end() { rings.reset(); }

  /** Whether the kernel passes reads and writes through, as far as it can. */
  bool passes_through() const { return grants_passthrough; }

  /** Makes a file known to the kernel as one to read and write by itself. Answers what it calls it; 0 where it cannot do so. */
  int32_t open_backing(int fd);
  void close_backing(int32_t backing);

  /** The reply to OPEN or CREATE that this thread sends next names this backing file. */
  static void reply_with_backing(int32_t backing);

  /** Whether the request that this thread took last is to clear the file's set-id bits. */
  static bool request_clears_set_ids();

  /** What the hooks found; for them alone. */
  std::atomic<uint64_t> init_request = 0;  ///< the request whose reply is still to be edited; 0: none
  std::atomic<uint32_t> offered = 0;       ///< the features that the kernel offered in it
  std::atomic<uint32_t> offered_more = 0;  ///< those from the 32nd on
  bool wants_passthrough = false;
  std::atomic<bool> grants_passthrough = false;
  std::shared_ptr<RequestRings> rings;  ///< where requests come by them

 private:
  [[maybe_unused]] int device_ = -1;  ///< the session's, which closes it; Linux only
};

}  // namespace obfs
