#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "result.h"
#include "unique_fd.h"

struct fuse_session;

namespace obfs {

/**
 * Requests by io_uring instead of by reading the device (Linux 6.14, where root has enabled it: fuse.enable_uring). Each CPU has threads of
 * its own, and what a caller asks on that CPU is answered there: waking a thread of another CPU costs more than all that we do. One system
 * call replies and takes the next request. FORGET and INTERRUPT still come by the device, and so does everything until all CPUs are served.
 */
class RequestRings {
 public:
  /** What the kernel wants to know of a request before it is handled, in the thread that handles it. */
  using BeforeRequest = void (*)(const void* request, size_t size);

  RequestRings(fuse_session* session, int device, BeforeRequest before_request);
  /** Ends the threads; what they work on is finished first. */
  ~RequestRings();
  RequestRings(const RequestRings&) = delete;
  RequestRings& operator=(const RequestRings&) = delete;

  /** Whether every CPU that may make a request is there to serve it. */
  static bool fit_this_machine();

  /**
   * To be called when the kernel has taken the reply to INIT. Without room for all threads some CPUs, and then the kernel, do without.
   * @param payload_max the most bytes that a request or reply has besides its headers
   */
  void start(size_t payload_max);

  /** Takes the reply, if it is to the request that this thread has from its ring. */
  static bool take_reply(const iovec* parts, int count);

 private:
  void serve(int cpu, size_t payload_max) const;

  fuse_session* const session_;
  const int device_;
  const BeforeRequest before_request_;
  UniqueFd stop_;  ///< readable when the threads are to end
  std::vector<std::thread> threads_;
};

}  // namespace obfs
