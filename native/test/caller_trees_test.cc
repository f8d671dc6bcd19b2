#include "caller_trees.h"

#include <doctest/doctest.h>

#include "scratch.h"

using namespace obfs;
using obfs::testing::Scratch;

namespace {

constexpr uid_t kAnna = 7721, kBert = 7722, kCarl = 7723;

Caller caller(uid_t uid) { return Caller{uid, uid, 0}; }

struct Fixture {
  Scratch scratch;
  std::shared_ptr<TreeDirectory> covered;

  Fixture() {
    scratch.make_directory("scoreboard");
    scratch.make_directory("covered");
    scratch.make_directory("anna/local", kAnna);
    scratch.make_directory("bert/local", kBert);
    covered = scratch.directory("covered");
    scratch.point("7721", scratch.path("anna"));
    scratch.point("7722", scratch.path("bert"));
  }
  CallerTrees trees(bool map_owner = false) {
    return CallerTrees({scratch.path("scoreboard"), {"local", scratch.path("covered")}, map_owner}, covered);
  }
  ino_t inode(const std::string& name) {
    struct stat attr;
    REQUIRE(stat(scratch.path(name).c_str(), &attr) == 0);
    return attr.st_ino;
  }
  /** What makes an entry unusable must refuse its caller and say why. */
  void check_refused(CallerTrees& judged, const char* reason) {
    CHECK(judged.at_shared_root(caller(kAnna)).error() == EACCES);
    CHECK(judged.at_tree_root(kAnna, kAnna).error() == EACCES);
    for (const ScoreboardEntry& entry :
         *read_scoreboard(scratch.path("scoreboard"), {"local", scratch.path("covered")})) {
      if (entry.name == "7721") CHECK(entry.problem.find(reason) != std::string::npos);
    }
    CHECK(judged.at_shared_root(caller(kBert)).ok());
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "each caller sees its own tree, one without an entry the covered directory") {
  CallerTrees seen = trees();
  CHECK((*seen.at_shared_root(caller(kAnna)))->directory->inode() == inode("anna/local"));
  CHECK((*seen.at_shared_root(caller(kBert)))->directory->inode() == inode("bert/local"));
  CHECK((*seen.at_shared_root(caller(kCarl)))->directory == covered);
  CHECK(seen.at_tree_root(kCarl, kCarl).error() == ENOENT);
}

TEST_CASE_FIXTURE(Fixture, "the entry default serves ordinary uids, never root or system accounts") {
  CallerTrees seen = trees();
  scratch.point("default", scratch.path("bert"));
  CHECK((*seen.at_shared_root(caller(kCarl)))->directory->inode() == inode("bert/local"));
  CHECK((*seen.at_shared_root(caller(0)))->directory == covered);
  CHECK((*seen.at_shared_root(caller(999)))->directory == covered);
  scratch.point("0", scratch.path("anna"));
  CHECK((*seen.at_shared_root(caller(0)))->directory->inode() == inode("anna/local"));
}

TEST_CASE_FIXTURE(Fixture, "an entry that cannot be used refuses its caller, whatever is wrong with it") {
  CallerTrees judged = trees();
  REQUIRE(judged.at_shared_root(caller(kAnna)).ok());
  const std::string link = scratch.path("scoreboard/7721");

  SUBCASE("it leads nowhere") {
    scratch.point("7721", "/nowhere");
    check_refused(judged, "leads nowhere");
  }
  SUBCASE("it is relative") {
    scratch.point("7721", "../anna");
    check_refused(judged, "relative");
  }
  SUBCASE("it belongs to a user") {
    REQUIRE(lchown(link.c_str(), kAnna, kAnna) == 0);
    check_refused(judged, "belongs to uid 7721");
  }
  SUBCASE("it is a directory") {
    unlink(link.c_str());
    mkdir(link.c_str(), 0755);
    check_refused(judged, "not a symbolic link");
  }
  SUBCASE("its directory has no subdirectory") {
    rmdir(scratch.path("anna/local").c_str());
    check_refused(judged, "does not exist");
  }
  SUBCASE("its subdirectory is a link out of it") {
    rmdir(scratch.path("anna/local").c_str());
    REQUIRE(symlink("/etc", scratch.path("anna/local").c_str()) == 0);
    check_refused(judged, "not a directory");
  }
  SUBCASE("its subdirectory is a file") {
    rmdir(scratch.path("anna/local").c_str());
    scratch.make_file("anna/local", "");
    check_refused(judged, "not a directory");
  }
  SUBCASE("it leads into the prefix itself") {
    scratch.make_directory("covered/anna/local", kAnna);
    scratch.point("7721", scratch.path("covered/anna"));
    check_refused(judged, "into the prefix");
  }
  SUBCASE("its directory is itself a link") {
    REQUIRE(symlink(scratch.path("bert").c_str(), scratch.path("alias").c_str()) == 0);
    scratch.point("7721", scratch.path("alias"));
    check_refused(judged, "does not lead to a directory");
  }
}

TEST_CASE_FIXTURE(Fixture, "without a trustworthy scoreboard nobody is taken for a caller without an entry") {
  CallerTrees judged = trees();
  SUBCASE("it is gone") { rename(scratch.path("scoreboard").c_str(), scratch.path("elsewhere").c_str()); }
  SUBCASE("others may write it") {
    chmod(scratch.path("scoreboard").c_str(), 0777);
    unlink(scratch.path("scoreboard/7721").c_str());
  }
  CHECK(judged.at_shared_root(caller(kAnna)).error() == EACCES);
  CHECK(judged.at_shared_root(caller(kCarl)).error() == EACCES);
}

TEST_CASE_FIXTURE(Fixture, "a rewritten link starts a new generation, an untouched one does not") {
  CallerTrees seen = trees();
  const TreeRef first = *seen.at_shared_root(caller(kAnna));
  CHECK(*seen.at_shared_root(caller(kAnna)) == first);
  scratch.point("7721", scratch.path("anna"));
  const TreeRef second = *seen.at_shared_root(caller(kAnna));
  CHECK(second != first);
  CHECK(second->directory == first->directory);
  scratch.point("7721", scratch.path("bert"));
  CHECK((*seen.at_shared_root(caller(kAnna)))->directory->inode() == inode("bert/local"));
}

TEST_CASE_FIXTURE(Fixture, "a directory that took another's place is seen without a new link") {
  CallerTrees seen = trees();
  const TreeRef first = *seen.at_shared_root(caller(kAnna));
  rename(scratch.path("anna/local").c_str(), scratch.path("anna/old").c_str());
  scratch.make_directory("anna/local", kAnna);
  CHECK((*seen.at_shared_root(caller(kAnna)))->directory->inode() == inode("anna/local"));
}

TEST_CASE_FIXTURE(Fixture, "callers that share a directory share its view, and a new link renews it for all") {
  CallerTrees seen = trees();
  scratch.point("7722", scratch.path("anna"));
  const TreeRef annas = *seen.at_shared_root(caller(kAnna));
  CHECK(*seen.at_shared_root(caller(kBert)) == annas);
  scratch.point("7722", scratch.path("anna"));
  const TreeRef renewed = *seen.at_shared_root(caller(kBert));
  CHECK(renewed != annas);
  CHECK(*seen.at_shared_root(caller(kAnna)) == renewed);
}

TEST_CASE_FIXTURE(Fixture, "a view ends when its directory is changed through another door, not by its own changes") {
  CallerTrees seen = trees();
  const TreeRef shared = *seen.at_shared_root(caller(kAnna));
  const TreeRef door = *seen.at_tree_root(kAnna, kAnna);
  CHECK(shared != door);
  shared->note_change();
  CHECK(*seen.at_shared_root(caller(kAnna)) == shared);
  CHECK(*seen.at_tree_root(kAnna, kAnna) != door);
}

TEST_CASE_FIXTURE(Fixture, "with map-owner each caller has a view in which the owner's files are its own") {
  CallerTrees seen = trees(true);
  scratch.point("7722", scratch.path("anna"));
  const TreeRef annas = *seen.at_shared_root(caller(kAnna));
  const TreeRef berts = *seen.at_shared_root(caller(kBert));
  CHECK(annas != berts);
  struct stat attr = {};
  attr.st_uid = kAnna;
  attr.st_gid = kAnna;
  berts->show(attr);
  CHECK(attr.st_uid == kBert);
  CHECK(attr.st_gid == kBert);
  CHECK(berts->identity_of(caller(kBert)).uid == kAnna);
  CHECK(berts->identity_of(caller(kCarl)).uid == kCarl);
  CHECK(berts->stored_uid(kBert) == kAnna);
  CHECK(berts->stored_uid(kCarl) == kCarl);
}
