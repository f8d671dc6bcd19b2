// What several processes do to the same files at once.

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <csignal>

#include "suite.h"

using namespace posix;

namespace {

struct flock write_lock(off_t start, off_t length) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

int lock_at(int fd, int command, struct flock lock) { return fcntl(fd, command, &lock); }

sockaddr_un address_of(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, name.c_str(), sizeof address.sun_path - 1);
  return address;
}

}  // namespace

POSIX_TEST(shared_mmap, "mmap: what one process writes to a shared mapping others read, by mapping and by read") {
  const size_t size = 65536;
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  OK(ftruncate(fd, size));
  const Signal wrote, saw;
  Child writer([&] {
    const Fd own = OPEN((dir + "/file").c_str(), O_RDWR);
    char* const memory = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0));
    for (char round = 'a'; round < 'k'; ++round) {
      memset(memory, round, size);
      wrote.raise();
      saw.wait();
    }
  });
  const char* const memory = static_cast<char*>(mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0));
  for (char round = 'a'; round < 'k'; ++round) {
    wrote.wait();
    CHECK_EQ(memory[0], round);
    CHECK_EQ(memory[size - 1], round);
    CHECK(read_at(fd, size, 0) == std::string(size, round));
    saw.raise();
  }
  writer.join();
}

POSIX_TEST(written_mapped, "mmap: what is written is at once in others' mappings") {
  const Fd fd = OPEN((dir + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  write_at(fd, std::string(8192, '0'), 0);
  const char* const memory = static_cast<char*>(mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0));
  CHECK_EQ(memory[5000], '0');
  Child([&] { write_at(OPEN((dir + "/file").c_str(), O_WRONLY), "x", 5000); }).join();
  CHECK_EQ(memory[5000], 'x');
}

POSIX_TEST(seen_at_once, "what one process writes, another that has the file open reads at once, and sees its size") {
  const std::string file = dir + "/file";
  const Fd reader = OPEN(file.c_str(), O_RDONLY | O_CREAT, 0600);
  std::string model;
  for (int i = 0; i < 100; ++i) {
    const std::string part = std::to_string(i) + " ";
    Child([&] { write_at(OPEN(file.c_str(), O_WRONLY), part, static_cast<off_t>(model.size())); }).join();
    model += part;
    CHECK_EQ(stat_of(file).st_size, static_cast<off_t>(model.size()));
    CHECK_EQ(read_at(reader, 1000, 0), model);
  }
}

POSIX_TEST(append_race, "O_APPEND: no record of four writers is lost, torn or overwritten") {
  constexpr int kWriters = 4, kRecords = 300;
  const std::string file = dir + "/log";
  at_once(kWriters, [&](int writer) {
    const Fd fd = OPEN(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    for (int i = 0; i < kRecords; ++i) {
      std::string record = std::to_string(writer) + " " + std::to_string(i);
      record.resize(99, '.');
      CHECK_EQ(OK(write(fd, (record + "\n").c_str(), 100)), 100);
    }
  });
  const std::string log = read_file(file);
  CHECK_EQ(log.size(), static_cast<size_t>(kWriters * kRecords * 100));
  std::vector<int> next(kWriters, 0);
  for (size_t at = 0; at < log.size(); at += 100) {
    const int writer = log[at] - '0';
    CHECK(writer >= 0 && writer < kWriters && log[at + 99] == '\n');
    CHECK_EQ(std::stoi(log.substr(at + 2)), next[static_cast<size_t>(writer)]++);
  }
}

POSIX_TEST(truncate_race, "O_TRUNC: readers of a file that two writers empty and fill never see anything else") {
  const std::string file = dir + "/file";
  const std::string content(20000, 'a');
  write_file(file, content);
  at_once(4, [&](int who) {
    for (int i = 0; i < 150; ++i) {
      if (who < 2) {
        write_file(file, content);
      } else {
        const std::string read = read_file(file);
        CHECK(read.size() <= content.size());
        CHECK(read.find_first_not_of(std::string("a\0", 2)) == std::string::npos);
      }
    }
  });
  CHECK(read_file(file) == content);
}

POSIX_TEST(exclusive_race, "of eight that create or make the same name, one wins") {
  const std::string winners = dir + "/winners";
  at_once(8, [&](int) {
    const Fd log = OPEN(winners.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    for (int i = 0; i < 50; ++i) {
      const std::string name = dir + "/name" + std::to_string(i);
      const bool won = i % 2 == 0 ? close(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600)) == 0
                                  : mkdir(name.c_str(), 0700) == 0;
      if (won) OK(write(log, "w", 1));
    }
  });
  CHECK_EQ(stat_of(winners).st_size, 50);
}

POSIX_TEST(replace_race, "a file that is replaced by rename is always there, and whole") {
  const std::string file = dir + "/file";
  write_file(file, std::string(5000, '0'));
  at_once(4, [&](int who) {
    for (int i = 0; i < 200; ++i) {
      if (who < 2) {
        const std::string temporary = file + std::to_string(who);
        write_file(temporary, std::string(5000, static_cast<char>('1' + who)));
        OK(rename(temporary.c_str(), file.c_str()));
      } else {
        const std::string read = read_file(file);
        CHECK(read == std::string(5000, read[0]));
      }
    }
  });
}

POSIX_TEST(flock_test, "flock: one holder at a time, until it unlocks, closes or dies") {
  const std::string file = dir + "/file";
  write_file(file, "");
  const Signal locked, never;
  Child holder([&] {
    const Fd own = OPEN(file.c_str(), O_RDONLY);
    OK(flock(own, LOCK_EX));
    locked.raise();
    never.wait();
  });
  locked.wait();
  const Fd fd = OPEN(file.c_str(), O_RDONLY);
  FAILS(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  FAILS(flock(fd, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  holder.kill_now();
  OK(flock(fd, LOCK_SH | LOCK_NB));
  Child([&] {
    const Fd own = OPEN(file.c_str(), O_RDONLY);
    OK(flock(own, LOCK_SH | LOCK_NB));
    FAILS(flock(own, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  }).join();
}

POSIX_TEST(fcntl_test, "fcntl: byte ranges are locked against other processes, who learn the holder") {
  const std::string file = dir + "/file";
  const Fd fd = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  const Signal locked, never;
  Child holder([&] {
    const Fd own = OPEN(file.c_str(), O_RDWR);
    OK(lock_at(own, F_SETLK, write_lock(10, 10)));
    locked.raise();
    never.wait();
  });
  locked.wait();
  FAILS(lock_at(fd, F_SETLK, write_lock(15, 1)), EAGAIN);
  OK(lock_at(fd, F_SETLK, write_lock(20, 5)));
  struct flock asked = write_lock(0, 0);
  OK(fcntl(fd, F_GETLK, &asked));
  CHECK_EQ(asked.l_pid, holder.pid());
  CHECK_EQ(asked.l_start, 10);
  const Signal waiting;
  Child waiter([&] {
    waiting.raise();
    OK(lock_at(OPEN(file.c_str(), O_RDWR), F_SETLKW, write_lock(10, 1)));
  });
  waiting.wait();
  holder.kill_now();
  waiter.join();
  OK(lock_at(fd, F_SETLK, write_lock(10, 10)));
}

POSIX_TEST(open_file_locks, "fcntl: locks of open files keep two descriptors of one process apart") {
  const std::string file = dir + "/file";
  const Fd one = OPEN(file.c_str(), O_RDWR | O_CREAT, 0600);
  const Fd two = OPEN(file.c_str(), O_RDWR);
  OK(lock_at(one, F_OFD_SETLK, write_lock(0, 0)));
  FAILS(lock_at(two, F_OFD_SETLK, write_lock(0, 1)), EAGAIN);
}

POSIX_TEST(fifo_test, "a fifo carries bytes from one process to another, in order") {
  const std::string fifo = dir + "/fifo";
  OK(mkfifo(fifo.c_str(), 0600));
  FAILS(open(fifo.c_str(), O_WRONLY | O_NONBLOCK), ENXIO);
  std::string text;
  for (int i = 0; i < 20000; ++i) text += std::to_string(i);
  Child writer([&] {
    const Fd end = OPEN(fifo.c_str(), O_WRONLY);
    for (size_t at = 0; at < text.size();) at += static_cast<size_t>(OK(write(end, text.data() + at, text.size() - at)));
  });
  CHECK(read_file(fifo) == text);
  writer.join();
}

POSIX_TEST(socket_test, "a unix socket is bound, found by its path, and refuses once its server is gone") {
  OK(chdir(dir.c_str()));
  const sockaddr_un address = address_of("socket");
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  Fd server(OK(socket(AF_UNIX, SOCK_STREAM, 0)));
  OK(bind(server, generic, sizeof address));
  OK(listen(server, 1));
  CHECK(S_ISSOCK(stat_of(dir + "/socket").st_mode));
  Child client([&] {
    const Fd end(OK(socket(AF_UNIX, SOCK_STREAM, 0)));
    OK(connect(end, generic, sizeof address));
    CHECK_EQ(OK(write(end, "hello", 5)), 5);
  });
  CHECK_EQ(read_all(Fd(OK(accept(server, nullptr, nullptr)))), "hello");
  client.join();
  FAILS(bind(Fd(OK(socket(AF_UNIX, SOCK_STREAM, 0))), generic, sizeof address), EADDRINUSE);
  server.reset();
  FAILS(connect(Fd(OK(socket(AF_UNIX, SOCK_STREAM, 0))), generic, sizeof address), ECONNREFUSED);
}
