#include "kernel_io.h"

#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "fuse_ops.h"
#include "request_rings.h"

namespace obfs {

namespace {

constexpr uint32_t kWanted = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2;

// Linux 6.9, later than the headers that we build with.
constexpr uint32_t kPassthrough = 1U << (37 - 32);
constexpr uint32_t kOverIoUring = 1U << (41 - 32);  // 6.14
constexpr uint32_t kOpenPassthrough = 1U << 7;
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, uint32_t);

/** The words of the reply to INIT. */
enum InitWord { kFlags = 3, kMaxWrite = 5, kMaxPages = 7, kMoreFlags = 8, kMostStacked = 9, kInitWords = 16 };

thread_local bool clears_set_ids = false;
thread_local int32_t backing_to_reply = 0;

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
  io.offered = (*offer)[kFlags];
  const auto* const longer = body_of<uint32_t[5]>(&header, size);
  io.offered_more = longer != nullptr && (io.offered & FUSE_INIT_EXT) != 0 ? (*longer)[4] : 0;
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

void note_request(const void* request, size_t size) {
  clears_set_ids = asks_to_clear_set_ids(*static_cast<const fuse_in_header*>(request), static_cast<ssize_t>(size));
}

ssize_t read_request(int fd, void* buffer, size_t size, void* user_data) {
  const ssize_t got = read(fd, buffer, size);
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
  const auto& header = *static_cast<const fuse_in_header*>(buffer);
  if (header.opcode == FUSE_INIT) note_offer(kernel_io_of(user_data), header, got);
  note_request(buffer, static_cast<size_t>(got));
  return got;
}

bool is_init_reply(const KernelIo& io, const iovec* parts, int count) {
  if (io.init_request == 0 || count < 2) return false;
  const auto& header = *static_cast<const fuse_out_header*>(parts[0].iov_base);
  return header.unique == io.init_request && header.error == 0 && parts[1].iov_len >= sizeof(uint32_t[kInitWords]);
}

void ask_for_more(KernelIo& io, uint32_t* reply) {
  reply[kFlags] |= kWanted & io.offered;
  uint32_t more = 0;
  if (io.wants_passthrough && (io.offered_more & kPassthrough) != 0) {
    more |= kPassthrough;
    reply[kMostStacked] = 1;
    io.grants_passthrough = true;
  }
  if ((io.offered_more & kOverIoUring) != 0 && RequestRings::fit_this_machine()) more |= kOverIoUring;
  if (more != 0) reply[kFlags] |= FUSE_INIT_EXT;
  reply[kMoreFlags] |= more;
}

/** The kernel's own sum of what a request or reply may have besides its headers. */
size_t most_payload(const uint32_t* init_reply) {
  uint16_t pages;
  memcpy(&pages, init_reply + kMaxPages, sizeof pages);
  return std::max<size_t>({FUSE_MIN_READ_BUFFER, init_reply[kMaxWrite], pages * static_cast<size_t>(getpagesize())});
}

ssize_t send_init_reply(KernelIo& io, fuse_session* session, int fd, const iovec* parts, int count) {
  auto* const reply = static_cast<uint32_t*>(parts[1].iov_base);
  ask_for_more(io, reply);
  io.init_request = 0;
  const ssize_t sent = writev(fd, parts, count);
  if (sent > 0 && (reply[kMoreFlags] & kOverIoUring) != 0) {
    io.rings = std::make_shared<RequestRings>(session, fd, note_request);
    io.rings->start(most_payload(reply));
  }
  return sent;
}

/** The reply to OPEN ends with what was opened, that to CREATE too. */
void name_backing(const iovec& reply, int32_t backing) {
  auto* const opened = reinterpret_cast<fuse_open_out*>(static_cast<char*>(reply.iov_base) + reply.iov_len) - 1;
  opened->open_flags |= kOpenPassthrough;
  opened->padding = static_cast<uint32_t>(backing);
}

ssize_t send_reply(int fd, iovec* parts, int count, void* user_data) {
  auto& service = *static_cast<FuseService*>(user_data);
  KernelIo& io = service.kernel_io;
  if (is_init_reply(io, parts, count)) return send_init_reply(io, service.session, fd, parts, count);
  const int32_t backing = std::exchange(backing_to_reply, 0);
  if (backing != 0 && count >= 2 && parts[1].iov_len >= sizeof(fuse_open_out)) name_backing(parts[1], backing);
  if (!RequestRings::take_reply(parts, count)) return writev(fd, parts, count);
  ssize_t taken = 0;
  for (int i = 0; i < count; ++i) taken += static_cast<ssize_t>(parts[i].iov_len);
  return taken;
}

}  // namespace

Status KernelIo::attach(fuse_session* session, bool passthrough) {
  wants_passthrough = passthrough;
  device_ = fuse_session_fd(session);
  fuse_custom_io hooks = {};
  hooks.read = read_request;
  hooks.writev = send_reply;
  const int done = fuse_session_custom_io(session, &hooks, device_);
  return done == 0 ? Status() : Status(Errno{-done});
}

bool KernelIo::request_clears_set_ids() { return clears_set_ids; }

int32_t KernelIo::open_backing(int fd) {
  if (!passes_through()) return 0;
  BackingMap map = {fd, 0, 0};
  const int backing = ioctl(device_, kBackingOpen, &map);
  return backing > 0 ? backing : 0;
}

void KernelIo::close_backing(int32_t backing) {
  auto id = static_cast<uint32_t>(backing);
  (void)ioctl(device_, kBackingClose, &id);
}

void KernelIo::reply_with_backing(int32_t backing) { backing_to_reply = backing; }

}  // namespace obfs
