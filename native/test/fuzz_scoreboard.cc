#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "caller_trees.h"
#include "fuzz.h"
#include "os_calls.h"
#include "scratch.h"

using namespace obfs;
using obfs::testing::Fuzz;
using obfs::testing::open_descriptors;
using obfs::testing::Scratch;

namespace {

constexpr uid_t kFirstUid = 7721;
constexpr size_t kUids = 6;

/** A scoreboard that whoever may write to it has filled at random; two honest trees and a directory that belongs to no tree. */
class RandomScoreboard {
 public:
  explicit RandomScoreboard(Fuzz& fuzz) : fuzz_(fuzz) {
    scratch.make_directory("scoreboard");
    scratch.make_directory("covered");
    scratch.make_directory("anna/local", kFirstUid);
    scratch.make_directory("bert/local", kFirstUid + 1);
    scratch.make_directory("closed", 0, 0700);
    scratch.make_file("file", "");
    (void)!symlink(scratch.path("anna").c_str(), scratch.path("link").c_str());
    (void)!symlink("loop", scratch.path("loop").c_str());
    scratch.make_directory("outside");
    (void)!symlink(scratch.path("anna/local").c_str(), scratch.path("outside/local").c_str());
  }

  /** Makes, replaces or removes one entry. */
  void change() {
    const std::string path = scratch.path("scoreboard/" + name());
    (void)!unlink(path.c_str());
    (void)!rmdir(path.c_str());
    switch (fuzz_.below(12)) {
      case 0:
        return;
      case 1:
        (void)!mkdir(path.c_str(), 0755);
        return;
      case 2:
        (void)!mkfifo(path.c_str(), 0644);
        return;
      case 3:
        close(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        return;
      case 4:
        (void)!link(scratch.path("file").c_str(), path.c_str());
        return;
      default:
        (void)!symlink(target().c_str(), path.c_str());
        if (fuzz_.below(8) == 0) (void)!lchown(path.c_str(), kFirstUid, kFirstUid);
    }
  }

  /** Moves, removes or makes a directory on the way to a tree, or the scoreboard itself. */
  void change_way() {
    const auto path = [&](const char* name) { return scratch.path(name); };
    const std::string way = path(fuzz_.pick<const char*>({"anna", "bert", "anna/local", "bert/local", "scoreboard"}));
    const std::string aside = path(fuzz_.pick<const char*>({"aside", "away", "anna/aside"}));
    switch (fuzz_.below(5)) {
      case 0:
        (void)!rmdir(way.c_str());
        return;
      case 1:
        (void)!mkdir(way.c_str(), 0755);
        return;
      case 2:
        (void)!rename(way.c_str(), aside.c_str());
        return;
      case 3:
        (void)!rename(aside.c_str(), way.c_str());
        return;
      default:
        (void)!syscall(SYS_renameat2, AT_FDCWD, way.c_str(), AT_FDCWD, aside.c_str(), os::kExchange);
    }
  }

  Scratch scratch;

 private:
  std::string name() {
    switch (fuzz_.below(6)) {
      case 0:
        return fuzz_.file_name();
      case 1:
        return fuzz_.pick<std::string>(
            {"default", "0", "07721", "-1", "4294967295", "4294967296", "99999999999999999999"});
      default:
        return std::to_string(kFirstUid + fuzz_.below(kUids));
    }
  }

  std::string target() {
    const auto fresh = [&](const char* known) { return scratch.path(known); };
    switch (fuzz_.below(10)) {
      case 0:
        return fuzz_.bytes(1 + fuzz_.below(PATH_MAX - 2));
      case 1:
        return "/" + fuzz_.bytes(1 + fuzz_.below(PATH_MAX - 3));
      case 2:
        return fresh("anna/../bert");
      case 3:
        return fuzz_.pick<std::string>({"/", "//", ".", "..", "/.", "/dev/null", "/proc/self/fd/0", "/proc/self/root"});
      case 4:
        return fresh("anna") + std::string(fuzz_.below(3000), '/');
      default:
        return fresh(fuzz_.pick<const char*>({"anna", "bert", "closed", "file", "link", "loop", "outside", "missing"}));
    }
  }

  Fuzz& fuzz_;
};

/** Whom a caller's entry serves by the rules, judged apart from the code under test. */
bool may_see_covered(const Scratch& scratch, uid_t uid) {
  struct stat entry;
  return lstat(scratch.path("scoreboard/" + std::to_string(uid)).c_str(), &entry) != 0 &&
         lstat(scratch.path("scoreboard/default").c_str(), &entry) != 0;
}

}  // namespace

TEST_SUITE_BEGIN("fuzz");

TEST_CASE("fuzz: whatever a scoreboard holds, each entry is judged, and who has one never sees the covered directory") {
  Fuzz fuzz("scoreboard");
  const size_t descriptors_before = open_descriptors();
  while (fuzz.goes_on()) {
    RandomScoreboard board(fuzz);
    const auto covered = board.scratch.directory("covered");
    CallerTrees trees({board.scratch.path("scoreboard"),
                       {fuzz.pick<const char*>({"local", "", "local/x", "a//b"}), ""},
                       fuzz.below(2) == 0},
                      covered);
    for (int step = 0; step < 60; ++step) {
      board.change();
      const uid_t uid = kFirstUid + fuzz.below(kUids);
      const auto seen = trees.at_shared_root(Caller{uid, uid, 0});
      const auto door = trees.at_tree_root(uid, uid);
      if (may_see_covered(board.scratch, uid)) {
        CHECK((seen.ok() && (*seen)->directory == covered));
        CHECK(door.error() == ENOENT);
      } else {
        CHECK((seen.ok() ? (*seen)->directory != covered : seen.error() == EACCES));
        CHECK(seen.ok() == door.ok());
      }
    }
    const auto entries = read_scoreboard(board.scratch.path("scoreboard"), {"local", ""});
    REQUIRE(entries.ok());
    for (const ScoreboardEntry& entry : *entries) {
      struct stat attr;
      REQUIRE(lstat(board.scratch.path("scoreboard/" + entry.name).c_str(), &attr) == 0);
      if (!S_ISLNK(attr.st_mode) || attr.st_uid != 0) CHECK(!entry.problem.empty());
    }
  }
  CHECK(open_descriptors() == descriptors_before);
}

TEST_CASE("fuzz: what is known of a caller without looking is what a first look tells") {
  Fuzz fuzz("settled");
  while (fuzz.goes_on()) {
    RandomScoreboard board(fuzz);
    const auto covered = board.scratch.directory("covered");
    const CallerTrees::Options options{board.scratch.path("scoreboard"), {"local", ""}};
    CallerTrees trees(options, covered);
    for (int step = 0; step < 200; ++step) {
      if (fuzz.below(4) == 0) board.change();
      if (fuzz.below(4) == 0) board.change_way();
      const uid_t uid = kFirstUid + fuzz.below(2);
      CallerTrees fresh(options, covered);
      const auto seen = trees.at_shared_root(Caller{uid, uid, 0});
      const auto expected = fresh.at_shared_root(Caller{uid, uid, 0});
      REQUIRE(seen.ok() == expected.ok());
      if (!seen.ok()) continue;
      CHECK((*seen)->directory->inode() == (*expected)->directory->inode());
      CHECK(((*seen)->directory == covered) == ((*expected)->directory == covered));
    }
  }
}

TEST_SUITE_END();
