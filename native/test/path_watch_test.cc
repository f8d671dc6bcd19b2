#ifdef __linux__

#include "path_watch.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include <thread>

#include "scratch.h"

using namespace obfs;
using obfs::testing::Scratch;

namespace {

struct Fixture {
  Scratch scratch;
  PathWatch watch;
  std::shared_ptr<PathWatch::Watched> watched;

  Fixture() {
    scratch.make_directory("a/b/c");
    scratch.make_directory("a/other");
    watched = *watch.watch(scratch.path("a/b/c"), false);
  }
  std::string path(const char* name) { return scratch.path(name); }
  template <typename Change>
  bool is_noticed(Change change) {
    const uint64_t before = watch.epoch();
    CHECK(watch.epoch() == before);
    change();
    return watch.epoch() != before;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a watched path that comes to lead elsewhere is noticed at once") {
  SUBCASE("its last name moves away") {
    CHECK(is_noticed([&] { rename(path("a/b/c").c_str(), path("a/b/d").c_str()); }));
  }
  SUBCASE("a directory on the way moves away") {
    CHECK(is_noticed([&] { rename(path("a").c_str(), path("z").c_str()); }));
  }
  SUBCASE("it is removed") {
    CHECK(is_noticed([&] { rmdir(path("a/b/c").c_str()); }));
  }
  SUBCASE("another directory takes its place") {
    CHECK(is_noticed([&] { rename(path("a/other").c_str(), path("a/b/c").c_str()); }));
  }
  SUBCASE("it changes places with another") {
    CHECK(is_noticed([&] {
      syscall(SYS_renameat2, AT_FDCWD, path("a/b").c_str(), AT_FDCWD, path("a/other").c_str(), 2 /* exchange */);
    }));
  }
}

TEST_CASE_FIXTURE(Fixture, "what happens beside a watched path is not noticed") {
  CHECK_FALSE(is_noticed([&] {
    scratch.make_directory("a/b/new");
    scratch.make_file("a/b/c/file", "text");
    rename(path("a/other").c_str(), path("a/another").c_str());
    chmod(path("a/b/c").c_str(), 0700);
    unlink(path("a/b/c/file").c_str());
  }));
}

TEST_CASE_FIXTURE(Fixture, "with its entries, a directory is noticed to change in its names and their attributes") {
  watched = *watch.watch(path("a/b"), true);
  CHECK(is_noticed([&] { scratch.make_file("a/b/new", ""); }));
  CHECK(is_noticed([&] { chmod(path("a/b/new").c_str(), 0600); }));
  CHECK(is_noticed([&] { unlink(path("a/b/new").c_str()); }));
  CHECK(is_noticed([&] { chmod(path("a/b").c_str(), 0700); }));
}

TEST_CASE_FIXTURE(Fixture, "two watch one path, and the one that ends takes nothing from the other") {
  auto second = *watch.watch(path("a/b/c"), false);
  watched.reset();
  CHECK(is_noticed([&] { rename(path("a/b/c").c_str(), path("a/b/d").c_str()); }));
  second.reset();
  CHECK_FALSE(is_noticed([&] { rename(path("a/b/d").c_str(), path("a/b/c").c_str()); }));
}

TEST_CASE_FIXTURE(Fixture, "more changes than the kernel keeps are one change") {
  watched = *watch.watch(path("a/b"), true);
  CHECK(is_noticed([&] {
    for (int i = 0; i < 20000; ++i) {
      close(open(path(i % 2 == 0 ? "a/b/even" : "a/b/odd").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
      unlink(path(i % 2 == 0 ? "a/b/even" : "a/b/odd").c_str());
    }
  }));
  CHECK(is_noticed([&] { scratch.make_file("a/b/new", ""); }));
}

TEST_CASE_FIXTURE(Fixture, "whose changes would go unnoticed is not watched") {
  REQUIRE(symlink("b", path("a/link").c_str()) == 0);
  CHECK(watch.watch(path("a/link/c"), false).error() == ENOTDIR);
  CHECK(watch.watch(path("a/missing/c"), false).error() == ENOENT);
  CHECK(watch.watch(path("a/b/../b/c"), false).error() == EOPNOTSUPP);
  CHECK(watch.watch("a/b/c", false).error() == EOPNOTSUPP);
}

TEST_CASE_FIXTURE(Fixture, "a change is noticed by whichever thread asks after it") {
  watched = *watch.watch(path("a/b"), true);
  std::atomic<bool> is_over = false;
  std::thread other([&] {
    while (!is_over) watch.epoch();
  });
  int unnoticed = 0;
  for (int i = 0; i < 2000; ++i) {
    const uint64_t before = watch.epoch();
    mkdir(path("a/b/new").c_str(), 0700);
    if (watch.epoch() == before) ++unnoticed;
    rmdir(path("a/b/new").c_str());
  }
  is_over = true;
  other.join();
  CHECK(unnoticed == 0);
}

#endif
