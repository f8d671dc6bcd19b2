#include <sys/mman.h>

#include <algorithm>

#include "models.h"
#include "suite.h"

namespace posix {

namespace {

constexpr size_t kMaxSize = 256 << 10;
constexpr size_t kMaxPart = 20000;

/** One file, open twice, and what it should contain. */
class DataModel {
 public:
  DataModel(const std::string& folder, uint32_t seed) : path_(folder + "/data"), dice_(seed) {
    for (int& fd : fds_) fd = OK(open(path_.c_str(), O_RDWR | O_CREAT, 0600));
  }
  ~DataModel() {
    for (const int fd : fds_) close(fd);
  }

  void step() {
    const int fd = fds_[dice_.below(2)];
    switch (dice_.below(12)) {
      case 0: case 1: return read_part(fd);
      case 2: case 3: return write_part(fd);
      case 4: return resize(fd);
      case 5: return read_mapped(fd);
      case 6: return write_mapped(fd);
      case 7: return zero(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
      case 8: return zero(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
      case 9: return copy_part(fd);
      case 10: return append();
      default: return reopen();
    }
  }

  void check_all() {
    const std::string content = read_file(path_);
    if (content == model_) return;
    size_t at = 0;
    while (at < std::min(content.size(), model_.size()) && content[at] == model_[at]) ++at;
    fail(__FILE__, __LINE__,
         "the file differs at " + std::to_string(at) + " of " + std::to_string(model_.size()) + " (it has " +
             std::to_string(content.size()) + ")");
  }

 private:
  struct Part {
    size_t offset;
    size_t size;
  };
  Part any_part() { return {dice_.below(kMaxSize - kMaxPart), 1 + dice_.below(kMaxPart)}; }
  /** A part of what is there; size 0 when nothing is. */
  Part inner_part() {
    if (model_.empty()) return {0, 0};
    const size_t offset = dice_.below(model_.size());
    return {offset, std::min(1 + dice_.below(kMaxPart), model_.size() - offset)};
  }
  std::string any_text(size_t size) {
    std::string text(size, '\0');
    for (char& byte : text) byte = static_cast<char>(dice_.below(256));
    return text;
  }
  void put(size_t offset, const std::string& text) {
    if (model_.size() < offset + text.size()) model_.resize(offset + text.size(), '\0');
    model_.replace(offset, text.size(), text);
  }

  void read_part(int fd) {
    const Part part = any_part();
    const std::string expected = part.offset < model_.size() ? model_.substr(part.offset, part.size) : "";
    CHECK(read_at(fd, part.size, static_cast<off_t>(part.offset)) == expected);
  }
  void write_part(int fd) {
    const Part part = any_part();
    const std::string text = any_text(part.size);
    write_at(fd, text, static_cast<off_t>(part.offset));
    put(part.offset, text);
  }
  void append() {
    if (model_.size() > kMaxSize - kMaxPart) return;
    const std::string text = any_text(1 + dice_.below(500));
    const Fd fd = OPEN(path_.c_str(), O_WRONLY | O_APPEND);
    CHECK_EQ(OK(write(fd, text.data(), text.size())), static_cast<ssize_t>(text.size()));
    put(model_.size(), text);
  }
  void resize(int fd) {
    const size_t size = dice_.below(8) == 0 ? 0 : dice_.below(kMaxSize);
    if (dice_.below(2) == 0) {
      OK(ftruncate(fd, static_cast<off_t>(size)));
    } else {
      OK(truncate(path_.c_str(), static_cast<off_t>(size)));
    }
    model_.resize(size, '\0');
  }
  char* map(int fd) {
    void* const memory = mmap(nullptr, model_.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    return static_cast<char*>(memory);
  }
  void read_mapped(int fd) {
    const Part part = inner_part();
    if (part.size == 0) return;
    char* const memory = map(fd);
    CHECK(std::string(memory + part.offset, part.size) == model_.substr(part.offset, part.size));
    munmap(memory, model_.size());
  }
  void write_mapped(int fd) {
    const Part part = inner_part();
    if (part.size == 0) return;
    const std::string text = any_text(part.size);
    char* const memory = map(fd);
    memcpy(memory + part.offset, text.data(), text.size());
    if (dice_.below(2) == 0) OK(msync(memory, model_.size(), MS_SYNC));
    munmap(memory, model_.size());
    put(part.offset, text);
  }
  void zero(int fd, int mode) {
    const Part part = inner_part();
    if (part.size == 0) return;
    OK(fallocate(fd, mode, static_cast<off_t>(part.offset), static_cast<off_t>(part.size)));
    put(part.offset, std::string(part.size, '\0'));
  }
  void copy_part(int fd) {
    const Part part = inner_part();
    const size_t target = dice_.below(kMaxSize - kMaxPart);
    if (part.size == 0 || (target < part.offset + part.size && part.offset < target + part.size)) return;
    off_t in = static_cast<off_t>(part.offset), out = static_cast<off_t>(target);
    const auto copied = static_cast<size_t>(OK(copy_file_range(fd, &in, fd, &out, part.size, 0)));
    put(target, model_.substr(part.offset, copied));
  }
  void reopen() {
    int& fd = fds_[dice_.below(2)];
    if (dice_.below(2) == 0) OK(fsync(fd));
    OK(close(fd));
    fd = OK(open(path_.c_str(), O_RDWR));
    CHECK_EQ(stat_of(path_).st_size, static_cast<off_t>(model_.size()));
  }

  const std::string path_;
  Dice dice_;
  int fds_[2];
  std::string model_;
};

}  // namespace

void run_data_model(const std::string& folder, uint32_t seed, long operations) {
  DataModel model(folder, seed);
  for (long i = 0; i < operations; ++i) {
    try {
      model.step();
      if (i % 50 == 0 || i == operations - 1) model.check_all();
    } catch (const Failure& failed) {
      throw Failure("operation " + std::to_string(i) + ": " + failed.what());
    }
  }
}

}  // namespace posix
