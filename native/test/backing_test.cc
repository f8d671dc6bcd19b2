#include "backing.h"

#include <doctest/doctest.h>

#include "scratch.h"

using namespace obfs;
using obfs::testing::Scratch;

namespace {

struct Fixture {
  Scratch scratch;
  UniqueFd root;
  std::unique_ptr<Backing> backing;

  Fixture() : root(open(scratch.make_directory("tree").c_str(), O_PATH | O_CLOEXEC)) {
    backing = *make_handles_backing(root.get());
  }
  FoundFile find(const char* name) {
    auto found = backing->identify(UniqueFd(openat(root.get(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC)));
    REQUIRE(found.ok());
    return std::move(*found);
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "hard links to one file have one key, different files have different keys") {
  scratch.make_file("tree/a", "a");
  scratch.make_file("tree/b", "b");
  REQUIRE(link(scratch.path("tree/a").c_str(), scratch.path("tree/c").c_str()) == 0);
  CHECK(find("a").key == find("c").key);
  CHECK_FALSE(find("a").key == find("b").key);
  CHECK(*backing->key_of(root.get(), "a") == find("a").key);
}

TEST_CASE_FIXTURE(Fixture, "a file that gets a recycled inode number has another key") {
  bool was_recycled = false;
  for (int i = 0; i < 50 && !was_recycled; ++i) {
    scratch.make_file("tree/old", "old");
    const FoundFile old = find("old");
    unlink(scratch.path("tree/old").c_str());
    const ino_t inode = old.attr.st_ino;
    const FileKey key = old.key;
    { const FoundFile closed = FoundFile{UniqueFd(), old.attr, key}; }
    scratch.make_file("tree/new", "new");
    const FoundFile fresh = find("new");
    was_recycled = fresh.attr.st_ino == inode;
    CHECK_FALSE(fresh.key == key);
    unlink(scratch.path("tree/new").c_str());
  }
}

TEST_CASE_FIXTURE(Fixture, "a renamed file is opened by its key, a removed one is stale") {
  scratch.make_file("tree/a", "text");
  const FileKey key = find("a").key;
  rename(scratch.path("tree/a").c_str(), scratch.path("tree/b").c_str());
  auto opened = backing->open(key, "", O_RDONLY);
  REQUIRE(opened.ok());
  char text[4];
  CHECK(read(opened->get(), text, 4) == 4);
  unlink(scratch.path("tree/b").c_str());
  opened = Errno{EBADF};
  CHECK(backing->open(key, "", O_RDONLY).error() == ESTALE);
}

TEST_CASE_FIXTURE(Fixture, "a symbolic link is itself, not what it leads to") {
  REQUIRE(symlink("/etc/passwd", scratch.path("tree/link").c_str()) == 0);
  const FoundFile link = find("link");
  CHECK(S_ISLNK(link.attr.st_mode));
  CHECK(backing->open(link.key, "", O_RDONLY).error() == ELOOP);
}
