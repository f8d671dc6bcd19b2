#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <random>
#include <string>

namespace obfs::testing {

/**
 * A seeded run of random tests: says its seed, and goes on for OBFS_FUZZ_SECONDS (default 4). OBFS_FUZZ_SEED replays one.
 */
class Fuzz {
 public:
  explicit Fuzz(const char* what)
      : seed_(from_environment("OBFS_FUZZ_SEED", std::random_device()())),
        random_(seed_),
        ends_(Clock::now() + std::chrono::seconds(from_environment("OBFS_FUZZ_SECONDS", 4))) {
    MESSAGE("fuzz of ", std::string(what), ": replay with OBFS_FUZZ_SEED=", seed_);
  }

  bool goes_on() const { return Clock::now() < ends_; }

  /** A number from 0 to `count` - 1. */
  size_t below(size_t count) { return random_() % count; }

  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(choices.size())];
  }

  /** Any bytes but NUL. */
  std::string bytes(size_t length) {
    std::string made(length, '\0');
    for (char& byte : made) byte = static_cast<char>(1 + below(255));
    return made;
  }

  /** What a file can be called: mostly one of a few names. */
  std::string file_name() {
    switch (below(12)) {
      case 0: {
        std::string odd = bytes(1 + below(255));
        for (char& byte : odd) byte = byte == '/' ? '\\' : byte;
        return odd == "." || odd == ".." ? "..." : odd;
      }
      case 1:
        return std::string(255, 'y');
      default:
        return std::string(1, static_cast<char>('a' + below(6)));
    }
  }

  /** As `file_name`, or what no file can be called. For the code under test alone: it may lead anywhere. */
  std::string any_name() {
    if (below(12) != 0) return file_name();
    return pick<std::string>({"", ".", "..", "/", "a/b", "../..", "/etc/passwd", "a/", std::string(256, 'x')});
  }

 private:
  using Clock = std::chrono::steady_clock;

  static unsigned long from_environment(const char* variable, unsigned long otherwise) {
    const char* const value = getenv(variable);
    return value == nullptr ? otherwise : strtoul(value, nullptr, 10);
  }

  const unsigned long seed_;
  std::mt19937_64 random_;
  const Clock::time_point ends_;
};

/** How many descriptors this process has open. */
inline size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

}  // namespace obfs::testing
