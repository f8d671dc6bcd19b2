#include <linux/fuse.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <system_error>

#include "fuse_ops.h"
#include "request_rings.h"

namespace obfs {

namespace {

// Linux 6.14, later than the headers that we build with: <linux/fuse.h>, "fuse_uring_…".
struct RingHeaders {
  char in_or_out[128];  ///< fuse_in_header, then fuse_out_header
  char operation[128];  ///< of a request: what follows the header, where its kind has a struct for that
  uint64_t flags;
  uint64_t commit_id;
  uint32_t payload_size;
  uint32_t padding;
  uint64_t reserved;
};
struct RingCommand {
  uint64_t flags;
  uint64_t commit_id;
  uint16_t queue;
  uint8_t padding[6];
};
enum RingOperation : uint32_t { kRegister = 1, kCommitAndFetch = 2 };

constexpr size_t kPage = 4096;
constexpr size_t kSqeSize = 128;       // FUSE wants the large ones
constexpr size_t kCommandOffset = 48;  // of a submission's own part
constexpr unsigned kSlots = 2;         // the one request, and the call to end

/** Memory until the end of the scope. */
class Mapping {
 public:
  Mapping(size_t size, int flags, int fd, off_t offset)
      : size_(size), start_(mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, offset)) {}
  ~Mapping() {
    if (is_there()) munmap(start_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  bool is_there() const { return start_ != MAP_FAILED; }
  char* at(size_t offset) const { return static_cast<char*>(start_) + offset; }
  unsigned* word(size_t offset) const { return reinterpret_cast<unsigned*>(at(offset)); }

 private:
  const size_t size_;
  void* const start_;
};

/**
 * Where the kernel puts a request and takes its reply: a page of headers, one whose end is for the request's own, then the payload. So a
 * request can be put together in front of its payload, which is never copied.
 */
class RingEntry {
 public:
  explicit RingEntry(size_t payload_max)
      : memory_(2 * kPage + payload_max, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        regions_{{memory_.at(0), sizeof(RingHeaders)}, {memory_.at(2 * kPage), payload_max}} {}

  bool is_there() const { return memory_.is_there(); }
  const iovec* regions() const { return regions_; }
  uint64_t commit_id() const { return headers()->commit_id; }
  bool is_answered() const { return is_answered_; }

  /** The request in one piece, as the device would give it. */
  fuse_buf take_request() {
    fuse_in_header header;
    memcpy(&header, headers()->in_or_out, sizeof header);
    unique_ = header.unique;
    is_answered_ = false;
    const size_t operation = header.len - sizeof header - headers()->payload_size;
    char* const start = payload() - operation - sizeof header;
    memcpy(start, &header, sizeof header);
    memcpy(start + sizeof header, headers()->operation, std::min(operation, sizeof headers()->operation));
    fuse_buf request = {};
    request.mem = start;
    request.size = header.len;
    return request;
  }

  /** Whether it is the reply to this request; notifications are none. */
  bool take_reply(const iovec* parts, int count) {
    fuse_out_header header;
    memcpy(&header, parts[0].iov_base, sizeof header);
    if (header.unique != unique_) return false;
    put_reply(header);
    char* end = payload();
    for (int i = 1; i < count; ++i) {
      memmove(end, parts[i].iov_base, parts[i].iov_len);
      end += parts[i].iov_len;
    }
    headers()->payload_size = static_cast<uint32_t>(end - payload());
    return true;
  }

  void fail(int error) { put_reply({sizeof(fuse_out_header), -error, unique_}); }

 private:
  RingHeaders* headers() const { return reinterpret_cast<RingHeaders*>(memory_.at(0)); }
  char* payload() const { return memory_.at(2 * kPage); }

  void put_reply(const fuse_out_header& header) {
    memcpy(headers()->in_or_out, &header, sizeof header);
    headers()->payload_size = 0;
    is_answered_ = true;
  }

  const Mapping memory_;
  const iovec regions_[2];
  uint64_t unique_ = 0;
  bool is_answered_ = false;
};

/** What a submission ended with. */
struct Done {
  uint64_t what;
  int32_t result;
};

/** An io_uring of one thread. */
class Ring {
 public:
  /** Nothing where the kernel has none to give. */
  static std::unique_ptr<Ring> open() {
    io_uring_params params = {};
    params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    UniqueFd fd(static_cast<int>(syscall(SYS_io_uring_setup, kSlots, &params)));
    if (!fd.is_open()) return nullptr;
    std::unique_ptr<Ring> ring(new Ring(std::move(fd), params));
    return ring->queues_.is_there() && ring->submissions_.is_there() ? std::move(ring) : nullptr;
  }

  /** The next submission, cleared. The kernel has taken all before it: `wait` submits every time. */
  io_uring_sqe& add() {
    const unsigned tail = *queues_.word(at_.sq_off.tail);
    const unsigned slot = tail & *queues_.word(at_.sq_off.ring_mask);
    queues_.word(at_.sq_off.array)[slot] = slot;
    std::atomic_ref(*queues_.word(at_.sq_off.tail)).store(tail + 1, std::memory_order_release);
    ++added_;
    auto* const submission = reinterpret_cast<io_uring_sqe*>(submissions_.at(slot * kSqeSize));
    memset(static_cast<void*>(submission), 0, kSqeSize);
    return *submission;
  }

  /** Submits what was added and waits for something that is done; nothing when that fails. */
  std::optional<Done> wait() {
    unsigned& head = *queues_.word(at_.cq_off.head);
    const std::atomic_ref<unsigned> tail(*queues_.word(at_.cq_off.tail));
    while (added_ > 0 || head == tail.load(std::memory_order_acquire)) {
      const long taken = syscall(SYS_io_uring_enter, fd_.get(), added_, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
      if (taken >= 0) {
        added_ -= static_cast<unsigned>(taken);
      } else if (errno != EINTR) {
        return {};
      }
    }
    const size_t offset = at_.cq_off.cqes + (head & *queues_.word(at_.cq_off.ring_mask)) * sizeof(io_uring_cqe);
    const auto* const completion = reinterpret_cast<const io_uring_cqe*>(queues_.at(offset));
    const Done done = {completion->user_data, completion->res};
    std::atomic_ref(head).store(head + 1, std::memory_order_release);
    return done;
  }

 private:
  Ring(UniqueFd fd, const io_uring_params& params)
      : fd_(std::move(fd)),
        at_(params),
        queues_(std::max(params.sq_off.array + params.sq_entries * sizeof(unsigned),
                         params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe)),
                MAP_SHARED | MAP_POPULATE, fd_.get(), IORING_OFF_SQ_RING),
        submissions_(params.sq_entries * kSqeSize, MAP_SHARED | MAP_POPULATE, fd_.get(), IORING_OFF_SQES) {}

  const UniqueFd fd_;
  const io_uring_params at_;
  const Mapping queues_;  // both in one: IORING_FEAT_SINGLE_MMAP, Linux 5.4
  const Mapping submissions_;
  unsigned added_ = 0;
};

enum Submitted : uint64_t { kRequest, kStop };

void add_command(Ring& ring, int device, int queue, RingOperation operation, const RingEntry& entry) {
  io_uring_sqe& submission = ring.add();
  submission.opcode = IORING_OP_URING_CMD;
  submission.fd = device;
  submission.cmd_op = operation;
  submission.user_data = kRequest;
  RingCommand command = {};
  command.queue = static_cast<uint16_t>(queue);
  if (operation == kRegister) {
    submission.addr = reinterpret_cast<uint64_t>(entry.regions());
    submission.len = 2;
  } else {
    command.commit_id = entry.commit_id();
  }
  memcpy(reinterpret_cast<char*>(&submission) + kCommandOffset, &command, sizeof command);
}

void add_stop(Ring& ring, int stop) {
  io_uring_sqe& submission = ring.add();
  submission.opcode = IORING_OP_POLL_ADD;
  submission.fd = stop;
  submission.poll32_events = POLLIN;
  submission.user_data = kStop;
}

/** What the calling thread works on. */
thread_local RingEntry* current = nullptr;

int cpu_count() { return static_cast<int>(sysconf(_SC_NPROCESSORS_CONF)); }

/** As many in all as without rings, and enough that slow requests of some callers do not keep a CPU's others waiting. */
int threads_for_each_cpu() { return std::max(4, 16 / cpu_count()); }

void become_thread_of(int cpu) {
  pthread_setname_np(pthread_self(), ("fuse-cpu-" + std::to_string(cpu)).c_str());
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<size_t>(cpu), &only);
  (void)sched_setaffinity(0, sizeof only, &only);  // where it may not run there, it serves from elsewhere
}

}  // namespace

RequestRings::RequestRings(fuse_session* session, int device, BeforeRequest before_request)
    : session_(session), device_(device), before_request_(before_request), stop_(eventfd(0, EFD_CLOEXEC)) {}

RequestRings::~RequestRings() {
  const uint64_t one = 1;
  if (stop_.is_open()) (void)!write(stop_.get(), &one, sizeof one);
  for (std::thread& thread : threads_) thread.join();
}

bool RequestRings::fit_this_machine() {
  return cpu_count() == sysconf(_SC_NPROCESSORS_ONLN) && cpu_count() <= CPU_SETSIZE;
}

void RequestRings::start(size_t payload_max) {
  if (!stop_.is_open()) return;
  try {
    for (int cpu = 0; cpu < cpu_count(); ++cpu) {
      for (int i = 0; i < threads_for_each_cpu(); ++i) {
        threads_.emplace_back([this, cpu, payload_max] { serve(cpu, payload_max); });
      }
    }
  } catch (const std::system_error&) {
    // No more threads: what is not served comes by the device.
  }
}

void RequestRings::serve(int cpu, size_t payload_max) const {
  become_thread_of(cpu);
  RingEntry entry(payload_max);
  const auto ring = Ring::open();
  if (ring == nullptr || !entry.is_there()) return;
  add_stop(*ring, stop_.get());
  add_command(*ring, device_, cpu, kRegister, entry);
  for (auto done = ring->wait(); done && done->what == kRequest && done->result == 0; done = ring->wait()) {
    fuse_buf request = entry.take_request();
    before_request_(request.mem, request.size);
    current = &entry;
    fuse_session_process_buf(session_, &request);
    current = nullptr;
    if (!entry.is_answered()) entry.fail(EIO);
    add_command(*ring, device_, cpu, kCommitAndFetch, entry);
  }
}

bool RequestRings::take_reply(const iovec* parts, int count) {
  return current != nullptr && current->take_reply(parts, count);
}

}  // namespace obfs
