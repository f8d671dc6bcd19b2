#include "kernel_io.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fuse_ops.h"

namespace obfs {

namespace {

constexpr uint32_t kWanted = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2;

thread_local bool clears_set_ids = false;

KernelIo& kernel_io_of(void* user_data) { return static_cast<FuseService*>(user_data)->kernel_io; }

/** The body of a request of this type; null when the request is too short to have one. */
template <typename Body>
const Body* body_of(const void* request, ssize_t size) {
  if (size < static_cast<ssize_t>(sizeof(fuse_in_header) + sizeof(Body))) return nullptr;
  return reinterpret_cast<const Body*>(static_cast<const char*>(request) + sizeof(fuse_in_header));
}

void note_offer(KernelIo& io, const fuse_in_header& header, ssize_t size) {
  // Before 7.36 the body was shorter; major, minor, readahead and flags have always been there.
  const auto* const offer = body_of<uint32_t[4]>(&header, size);
  if (offer == nullptr) return;
  io.offered = (*offer)[3];
  io.init_request = header.unique;
}

bool asks_to_clear_set_ids(const fuse_in_header& header, ssize_t size) {
  if (header.opcode == FUSE_WRITE) {
    const auto* const body = body_of<fuse_write_in>(&header, size);
    return body != nullptr && (body->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  }
  if (header.opcode == FUSE_SETATTR) {
    const auto* const body = body_of<fuse_setattr_in>(&header, size);
    return body != nullptr && (body->valid & FATTR_KILL_SUIDGID) != 0;
  }
  return false;
}

ssize_t read_request(int fd, void* buffer, size_t size, void* user_data) {
  const ssize_t got = read(fd, buffer, size);
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
  const auto& header = *static_cast<const fuse_in_header*>(buffer);
  if (header.opcode == FUSE_INIT) note_offer(kernel_io_of(user_data), header, got);
  clears_set_ids = asks_to_clear_set_ids(header, got);
  return got;
}

bool is_init_reply(const KernelIo& io, const iovec* parts, int count) {
  if (io.init_request == 0 || count < 2) return false;
  const auto& header = *static_cast<const fuse_out_header*>(parts[0].iov_base);
  return header.unique == io.init_request && header.error == 0 && parts[1].iov_len >= sizeof(uint32_t[4]);
}

ssize_t send_reply(int fd, iovec* parts, int count, void* user_data) {
  KernelIo& io = kernel_io_of(user_data);
  if (is_init_reply(io, parts, count)) {
    static_cast<uint32_t*>(parts[1].iov_base)[3] |= kWanted & io.offered;
    io.init_request = 0;
  }
  return writev(fd, parts, count);
}

}  // namespace

Status KernelIo::attach(fuse_session* session) {
  fuse_custom_io hooks = {};
  hooks.read = read_request;
  hooks.writev = send_reply;
  const int done = fuse_session_custom_io(session, &hooks, fuse_session_fd(session));
  return done == 0 ? Status() : Status(Errno{-done});
}

bool KernelIo::request_clears_set_ids() { return clears_set_ids; }

}  // namespace obfs
