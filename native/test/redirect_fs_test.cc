#include "redirect_fs.h"

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>

#include "os_calls.h"
#include "scratch.h"

using namespace obfs;
using obfs::testing::read_file;
using obfs::testing::Scratch;

namespace {

constexpr uid_t kAnna = 7721, kBert = 7722, kCarl = 7723, kDora = 7724;
const Caller anna{kAnna, kAnna, 0}, bert{kBert, kBert, 0}, carl{kCarl, kCarl, 0}, dora{kDora, kDora, 0}, root{0, 0, 0};

/** The suite runs once for each backing. */
BackingKind backing() {
  const char* const name = getenv("OBFS_TEST_BACKING");
  const std::string_view wanted = name == nullptr ? "" : name;
  if (wanted == "paths") return BackingKind::kPaths;
  if (wanted == "descriptors") return BackingKind::kDescriptors;
  return BackingKind::kHandles;
}

struct Fixture {
  Scratch scratch;
  std::unique_ptr<RedirectFs> fs;

  Fixture() {
    scratch.make_directory("scoreboard");
    for (const auto& [name, uid] : {std::pair("covered", 0u), {"anna/local", kAnna}, {"bert/local", kBert}}) {
      scratch.make_directory(name, uid);
      scratch.make_file(std::string(name) + "/who", name, uid);
      scratch.make_directory(std::string(name) + "/lib", uid);
    }
    scratch.point("7721", scratch.path("anna"));
    scratch.point("7722", scratch.path("bert"));
    scratch.point("7724", "/nowhere");
    mount({});
  }

  void mount(RedirectFs::Options options) {
    options.trees.scoreboard = scratch.path("scoreboard");
    options.trees.rules.subdirectory = "local";
    options.trees.backing = backing();
    options.doors_name = ".doors";
    fs = std::make_unique<RedirectFs>(options, scratch.directory("covered", backing()));
  }

  NodeId look_up(const Caller& caller, NodeId parent, const char* name) {
    const auto entry = fs->lookup(caller, parent, name);
    REQUIRE(entry.ok());
    REQUIRE(entry->id != 0);
    return entry->id;
  }
  std::string content(NodeId id) {
    const auto handle = fs->open(id, O_RDONLY);
    REQUIRE(handle.ok());
    char text[64];
    const ssize_t length = pread((*handle)->fd->get(), text, sizeof text, 0);
    return std::string(text, std::max<ssize_t>(length, 0));
  }
  std::set<std::string> names(const Caller& caller, NodeId id, bool with_lookups = false) {
    auto handle = fs->opendir(caller, id);
    REQUIRE(handle.ok());
    std::set<std::string> found;
    const auto status =
        fs->readdir(caller, **handle, 0, with_lookups, [&](const char* name, off_t, const Entry& entry) {
          found.insert(name);
          if (entry.id != 0) fs->forget(entry.id, 1);
          return true;
        });
    CHECK(status.ok());
    return found;
  }
  struct stat attr_of(const std::string& name) {
    struct stat attr;
    REQUIRE(lstat(scratch.path(name).c_str(), &attr) == 0);
    return attr;
  }
};

}  // namespace

TEST_SUITE_BEGIN("redirect_fs");

TEST_CASE_FIXTURE(Fixture, "the same name at the shared root is another file to each caller") {
  const NodeId annas = look_up(anna, kRootId, "who");
  const NodeId berts = look_up(bert, kRootId, "who");
  const NodeId covered = look_up(carl, kRootId, "who");
  CHECK(std::set{annas, berts, covered}.size() == 3);
  CHECK(content(annas) == "anna/local");
  CHECK(content(berts) == "bert/local");
  CHECK(content(covered) == "covered");
  CHECK(fs->lookup(dora, kRootId, "who").error() == EACCES);
  CHECK(fs->lookup(dora, kRootId, "missing").error() == EACCES);
}

TEST_CASE_FIXTURE(Fixture, "every operation at the shared root refuses a caller whose entry is broken") {
  CHECK(fs->opendir(dora, kRootId).error() == EACCES);
  CHECK(fs->mkdir(dora, kRootId, "d", 0755).error() == EACCES);
  CHECK(fs->create(dora, kRootId, "f", 0644, O_WRONLY).error() == EACCES);
  CHECK(fs->symlink(dora, kRootId, "l", "x").error() == EACCES);
  CHECK(fs->mknod(dora, kRootId, "p", S_IFIFO | 0644, 0).error() == EACCES);
  CHECK(fs->unlink(dora, kRootId, "who").error() == EACCES);
  CHECK(fs->rmdir(dora, kRootId, "lib").error() == EACCES);
  CHECK(fs->rename(dora, kRootId, "who", kRootId, "x", 0).error() == EACCES);
  CHECK(fs->statfs(dora, kRootId).error() == EACCES);
  CHECK(fs->getxattr(dora, kRootId, "user.x", 0).error() == EACCES);
  CHECK(fs->listxattr(dora, kRootId, 0).error() == EACCES);
  CHECK(fs->setxattr(dora, kRootId, "user.x", "1", 1, 0).error() == EACCES);
  CHECK(fs->access(dora, kRootId, R_OK).error() == EACCES);
  AttributeChange change;
  change.mode = 0700;
  CHECK(fs->setattr(dora, kRootId, change, nullptr).error() == EACCES);
}

TEST_CASE_FIXTURE(
    Fixture, "a caller without an entry can change nothing in the covered directory that it could not without us") {
  CHECK(fs->mkdir(carl, kRootId, "d", 0755).error() == EACCES);
  CHECK(fs->unlink(carl, kRootId, "who").error() == EACCES);
  CHECK(fs->rename(carl, kRootId, "who", kRootId, "x", 0).error() == EACCES);
  CHECK(fs->rmdir(carl, kRootId, "lib").error() == EACCES);
  CHECK(fs->link(carl, look_up(carl, kRootId, "who"), kRootId, "x").error() == EPERM);
  AttributeChange change;
  change.mode = 0777;
  CHECK(fs->setattr(carl, kRootId, change, nullptr).error() == EPERM);
  CHECK(fs->mkdir(root, kRootId, "d", 0755).ok());
}

TEST_CASE_FIXTURE(Fixture, "a tree root of mode 0700 is closed to all but its owner") {
  scratch.point("7722", scratch.path("anna"));
  chmod(scratch.path("anna/local").c_str(), 0700);
  CHECK(fs->lookup(bert, kRootId, "who").error() == EACCES);
  CHECK(fs->opendir(bert, kRootId).error() == EACCES);
  CHECK(fs->lookup(anna, kRootId, "who").ok());
}

TEST_CASE_FIXTURE(Fixture, "names at the shared root are not remembered, below it they are, missing ones too") {
  const auto lib = fs->lookup(anna, kRootId, "lib");
  CHECK(lib->entry_timeout == 0);
  CHECK(lib->attr_timeout > 0);
  CHECK(fs->lookup(anna, kRootId, "missing").error() == ENOENT);
  scratch.make_file("anna/local/lib/f", "x", kAnna);
  CHECK(fs->lookup(anna, lib->id, "f")->entry_timeout > 0);
  const auto missing = fs->lookup(anna, lib->id, "missing");
  CHECK(missing->id == 0);
  CHECK(missing->entry_timeout > 0);
  mount({.trees = {}, .doors_name = {}, .cache_names = false});
  const NodeId uncached = look_up(anna, kRootId, "lib");
  CHECK(fs->lookup(anna, uncached, "f")->entry_timeout == 0);
  CHECK(fs->lookup(anna, uncached, "missing").error() == ENOENT);
}

TEST_CASE_FIXTURE(Fixture, "nothing leads out of a tree by its name") {
  for (const char* name : {"..", ".", "", "../anna", "lib/../../who"}) {
    CHECK(fs->lookup(anna, kRootId, name).error() == EINVAL);
    CHECK(fs->mkdir(anna, kRootId, name, 0755).error() == EINVAL);
    CHECK(fs->unlink(anna, kRootId, name).error() == EINVAL);
    CHECK(fs->rename(anna, kRootId, "who", kRootId, name, 0).error() == EINVAL);
  }
  REQUIRE(symlink("/etc", scratch.path("anna/local/etc").c_str()) == 0);
  CHECK(fs->lookup(anna, look_up(anna, kRootId, "etc"), "passwd").error() == ENOTDIR);
  CHECK(fs->opendir(anna, look_up(anna, kRootId, "etc")).error() == ENOTDIR);
}

TEST_CASE_FIXTURE(Fixture, "what a caller makes is its own, at the root and below") {
  const auto made = fs->mkdir(anna, kRootId, "opt", 0750);
  REQUIRE(made.ok());
  CHECK(attr_of("anna/local/opt").st_uid == kAnna);
  auto created = fs->create(anna, made->id, "f", 0640, O_WRONLY);
  REQUIRE(created.ok());
  CHECK(attr_of("anna/local/opt/f").st_uid == kAnna);
  CHECK((attr_of("anna/local/opt/f").st_mode & 07777) == 0640);
  CHECK(fs->symlink(anna, made->id, "l", "f").ok());
  CHECK(attr_of("anna/local/opt/l").st_uid == kAnna);
  CHECK(*fs->readlink(look_up(anna, made->id, "l")) == "f");
  CHECK(fs->mknod(anna, made->id, "p", S_IFIFO | 0600, 0).ok());
  CHECK(S_ISFIFO(attr_of("anna/local/opt/p").st_mode));
  CHECK(fs->mknod(anna, made->id, "null", S_IFCHR | 0600, 0x103).error() == EPERM);
  CHECK(fs->link(anna, created->entry.id, kRootId, "hard").ok());
  CHECK(attr_of("anna/local/hard").st_nlink == 2);
}

TEST_CASE_FIXTURE(Fixture, "nothing moves or is linked from one tree to another") {
  const NodeId annas = look_up(anna, kRootId, "lib");
  CHECK(fs->rename(bert, kRootId, "who", annas, "stolen", 0).error() == EXDEV);
  CHECK(fs->link(bert, look_up(anna, kRootId, "who"), kRootId, "stolen").error() == EXDEV);
}

TEST_CASE_FIXTURE(Fixture, "a file that lost its last name keeps its attributes and content while it is in use") {
  const NodeId file = look_up(anna, kRootId, "who");
  const NodeId lib = look_up(anna, kRootId, "lib");
  SUBCASE("removed") { CHECK(fs->unlink(anna, kRootId, "who").ok()); }
  SUBCASE("replaced") {
    scratch.make_file("anna/local/new", "new", kAnna);
    CHECK(fs->rename(anna, kRootId, "new", kRootId, "who", 0).ok());
  }
  CHECK(fs->rmdir(anna, kRootId, "lib").ok());
  CHECK(fs->getattr(anna, file, nullptr)->attr.st_nlink == 0);
  CHECK(content(file) == "anna/local");
  CHECK(fs->getattr(anna, lib, nullptr).ok());
  AttributeChange change;
  change.size = 4;
  CHECK(fs->setattr(anna, file, change, nullptr).ok());
  CHECK(content(file) == "anna");
  fs->forget(file, 1);
  CHECK(fs->getattr(anna, file, nullptr).error() == ESTALE);
}

TEST_CASE_FIXTURE(Fixture, "listings are the caller's own, and name no nodes at the shared root") {
  scratch.make_file("anna/local/only-anna", "", kAnna);
  CHECK(names(anna, kRootId) == std::set<std::string>{".", "..", "who", "lib", "only-anna"});
  CHECK(names(bert, kRootId) == std::set<std::string>{".", "..", "who", "lib"});
  auto handle = fs->opendir(anna, kRootId);
  const auto status = fs->readdir(anna, **handle, 0, true, [&](const char*, off_t, const Entry& entry) {
    CHECK(entry.id == 0);
    return true;
  });
  CHECK(status.ok());
}

TEST_CASE_FIXTURE(Fixture, "an open shared root that was passed on lists its reader's tree") {
  scratch.make_file("bert/local/only-bert", "", kBert);
  auto handle = fs->opendir(anna, kRootId);
  std::set<std::string> found;
  const auto status = fs->readdir(bert, **handle, 0, false, [&](const char* name, off_t, const Entry&) {
    found.insert(name);
    return true;
  });
  CHECK(status.ok());
  CHECK(found.count("only-bert") == 1);
}

TEST_CASE_FIXTURE(Fixture, "a listing goes on where a full reply stopped it, and gives back what was not taken") {
  for (int i = 0; i < 300; ++i) scratch.make_file("anna/local/lib/f" + std::to_string(i), "", kAnna);
  auto handle = fs->opendir(anna, look_up(anna, kRootId, "lib"));
  REQUIRE(handle.ok());
  const size_t known = fs->known_nodes();
  std::multiset<std::string> found;
  off_t offset = 0;
  for (bool is_more = true; is_more;) {
    is_more = false;
    int room = 7;
    const auto status =
        fs->readdir(anna, **handle, offset, true, [&](const char* name, off_t next, const Entry& entry) {
          if (room-- == 0) return false;
          is_more = true;
          found.insert(name);
          offset = next;
          if (entry.id != 0) fs->forget(entry.id, 1);
          return true;
        });
    REQUIRE(status.ok());
  }
  CHECK(found.size() == 302);
  CHECK(std::set<std::string>(found.begin(), found.end()).size() == 302);
  CHECK(fs->known_nodes() == known);
}

TEST_CASE_FIXTURE(Fixture, "only root gets through the hidden doors, to the tree's own root") {
  CHECK(look_up(bert, kRootId, ".doors") == kDoorsId);
  CHECK((fs->getattr(bert, kDoorsId, nullptr)->attr.st_mode & 07777) == 0700);
  CHECK(fs->lookup(bert, kDoorsId, "7721.7721.x").error() == EACCES);
  const NodeId door = look_up(root, kDoorsId, "7721.7721.x");
  CHECK(fs->getattr(anna, door, nullptr)->attr.st_uid == kAnna);
  CHECK(content(look_up(anna, door, "who")) == "anna/local");
  CHECK(fs->lookup(anna, door, "lib")->entry_timeout > 0);
  CHECK(fs->lookup(root, kDoorsId, "7723.7723.x").error() == ENOENT);
  CHECK(fs->lookup(root, kDoorsId, "7724.7724.x").error() == EACCES);
  for (const char* name : {"7721", "7721.", "7721.7721.", "x", "-1.0.x", "7721.x.x"}) {
    CHECK(fs->lookup(root, kDoorsId, name).error() == ENOENT);
  }
  CHECK(names(root, kDoorsId).empty());
  CHECK(fs->mkdir(root, kDoorsId, "d", 0755).error() == EACCES);
  CHECK(fs->mkdir(anna, kRootId, ".doors", 0755).error() == EACCES);
  CHECK(fs->unlink(root, kRootId, ".doors").error() == EACCES);
}

TEST_CASE_FIXTURE(Fixture, "an open file keeps the old tree when its caller is sent to another") {
  const NodeId before = look_up(anna, kRootId, "who");
  const auto handle = fs->open(before, O_RDONLY);
  scratch.point("7721", scratch.path("bert"));
  CHECK(content(look_up(anna, kRootId, "who")) == "bert/local");
  CHECK(content(before) == "anna/local");
  CHECK(fs->getattr(anna, before, handle->get())->attr.st_uid == kAnna);
}

TEST_CASE_FIXTURE(Fixture, "changes of attributes reach the file, and only what was asked for") {
  const NodeId file = look_up(anna, kRootId, "who");
  AttributeChange change;
  change.mode = 0600;
  change.mtime = timespec{1000, 5};
  const auto changed = fs->setattr(anna, file, change, nullptr);
  REQUIRE(changed.ok());
  CHECK((changed->attr.st_mode & 07777) == 0600);
  CHECK(changed->attr.st_mtim.tv_sec == 1000);
  CHECK(changed->attr.st_mtim.tv_nsec == 5);
  CHECK(changed->attr.st_size == 10);
  CHECK(attr_of("anna/local/who").st_mtim.tv_sec == 1000);
}

TEST_CASE_FIXTURE(Fixture, "at the shared root touch and chmod change the caller's own tree root") {
  AttributeChange change;
  change.mode = 0711;
  change.mtime = timespec{2000, 0};
  CHECK(fs->setattr(anna, kRootId, change, nullptr).ok());
  CHECK((attr_of("anna/local").st_mode & 07777) == 0711);
  CHECK(attr_of("anna/local").st_mtim.tv_sec == 2000);
  CHECK((attr_of("bert/local").st_mode & 07777) == 0755);
}

TEST_CASE_FIXTURE(Fixture, "extended attributes are kept, listed and removed, by their length too") {
  const NodeId file = look_up(anna, kRootId, "who");
  REQUIRE(fs->setxattr(anna, file, "user.colour", "blue", 4, 0).ok());
  CHECK(fs->getxattr(anna, file, "user.colour", 0)->size() == 4);
  CHECK(*fs->getxattr(anna, file, "user.colour", 64) == "blue");
  CHECK(fs->getxattr(anna, file, "user.colour", 2).error() == ERANGE);
  CHECK(*fs->listxattr(anna, file, 64) == std::string("user.colour\0", 12));
  CHECK(fs->removexattr(anna, file, "user.colour").ok());
  CHECK(fs->getxattr(anna, file, "user.colour", 64).error() == ENODATA);
}

TEST_CASE_FIXTURE(Fixture,
                  "an access control list is its owner's to change, and names of trusted attributes are root's") {
  const NodeId file = look_up(anna, kRootId, "who");
  // Version 2; user::rw-, user:bert:rw-, group::r--, mask::rw-, other::r--
  const char list[] =
      "\2\0\0\0"
      "\1\0\6\0\xff\xff\xff\xff"
      "\2\0\6\0\x2a\x1e\0\0"
      "\4\0\4\0\xff\xff\xff\xff"
      "\x10\0\6\0\xff\xff\xff\xff"
      "\x20\0\4\0\xff\xff\xff\xff";
  const char* const name = "system.posix_acl_access";
  CHECK(fs->setxattr(bert, file, name, list, sizeof list - 1, 0).error() == EPERM);
  CHECK(fs->setxattr(anna, file, name, list, sizeof list - 1, 0).ok());
  CHECK(fs->removexattr(bert, file, name).error() == EPERM);
  CHECK(fs->removexattr(anna, file, name).ok());
  REQUIRE(fs->setxattr(root, file, "trusted.secret", "1", 1, 0).ok());
  REQUIRE(fs->setxattr(anna, file, "user.colour", "blue", 4, 0).ok());
  CHECK(*fs->listxattr(anna, file, 64) == std::string("user.colour\0", 12));
  CHECK(fs->listxattr(root, file, 64)->size() == 12 + 15);
}

TEST_CASE_FIXTURE(Fixture, "the shared root tells of no access control list, which the kernel would remember for all") {
  CHECK(fs->getxattr(anna, kRootId, "system.posix_acl_access", 0).error() == ENODATA);
  CHECK(fs->getxattr(anna, kRootId, "system.posix_acl_default", 0).error() == ENODATA);
}

TEST_CASE_FIXTURE(Fixture, "rename honours its flags") {
  scratch.make_file("anna/local/other", "other", kAnna);
  CHECK(fs->rename(anna, kRootId, "who", kRootId, "other", RENAME_NOREPLACE).error() == EEXIST);
  CHECK(fs->rename(anna, kRootId, "who", kRootId, "other", RENAME_EXCHANGE).ok());
  CHECK(read_file(scratch.path("anna/local/who")) == "other");
  CHECK(fs->rename(anna, kRootId, "who", kRootId, "x", RENAME_WHITEOUT).error() == EINVAL);
}

TEST_CASE_FIXTURE(Fixture, "with map-owner two callers take turns on one tree, each as its owner") {
  mount({.trees = {.scoreboard = {}, .rules = {}, .map_owner = true}, .doors_name = {}});
  scratch.point("7722", scratch.path("anna"));
  CHECK(fs->lookup(bert, kRootId, "who")->attr.st_uid == kBert);
  CHECK(fs->lookup(anna, kRootId, "who")->attr.st_uid == kAnna);
  const NodeId lib = look_up(bert, kRootId, "lib");
  CHECK(fs->mkdir(bert, lib, "made", 0755)->attr.st_uid == kBert);
  CHECK(attr_of("anna/local/lib/made").st_uid == kAnna);
  AttributeChange change;
  change.uid = kBert;
  change.gid = kBert;
  CHECK(fs->setattr(bert, look_up(bert, lib, "made"), change, nullptr).ok());
  CHECK(attr_of("anna/local/lib/made").st_uid == kAnna);
  CHECK(fs->lookup(anna, look_up(anna, kRootId, "lib"), "made")->attr.st_uid == kAnna);
}

TEST_CASE_FIXTURE(Fixture, "an id that the kernel should not know is stale, not a crash") {
  for (const NodeId id : {NodeId{3}, NodeId{9999}, ~NodeId{0}}) {
    CHECK(fs->lookup(anna, id, "x").error() == ESTALE);
    CHECK(fs->getattr(anna, id, nullptr).error() == ESTALE);
    CHECK(fs->open(id, O_RDONLY).error() == ESTALE);
    fs->forget(id, 5);
  }
}

TEST_CASE_FIXTURE(Fixture, "callers at work on the same names at once never meet another's file") {
  std::atomic<int> wrong = 0;
  const auto work = [&](const Caller& caller, const std::string& own) {
    for (int i = 0; i < 2000; ++i) {
      const auto entry = fs->lookup(caller, kRootId, "who");
      if (!entry.ok() || entry->attr.st_uid != caller.uid) {
        ++wrong;
        continue;
      }
      const auto handle = fs->open(entry->id, O_RDONLY);
      char text[64];
      const ssize_t length = handle.ok() ? pread((*handle)->fd->get(), text, sizeof text, 0) : -1;
      if (length < 0 || std::string(text, length) != own) ++wrong;
      fs->forget(entry->id, 1);
    }
  };
  std::thread a(work, anna, "anna/local"), b(work, bert, "bert/local");
  a.join();
  b.join();
  CHECK(wrong == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "what is made while somebody takes its name away is answered as made, or to be tried again") {
  const NodeId lib = look_up(anna, kRootId, "lib");
  const std::string path = scratch.path("anna/local/lib/n");
  std::atomic<bool> is_over = false;
  std::thread thief([&] {
    while (!is_over) {
      unlink(path.c_str());
      mkdir(path.c_str(), 0755);
      rmdir(path.c_str());
    }
  });
  int wrong = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto entry = fs->symlink(anna, lib, "n", "target");
    if (entry.ok()) {
      if (entry->id == 0 || !S_ISLNK(entry->attr.st_mode)) ++wrong;
      if (entry->id != 0) fs->forget(entry->id, 1);
    } else if (entry.error() != ESTALE && entry.error() != EEXIST) {
      ++wrong;
    }
  }
  is_over = true;
  thief.join();
  CHECK(wrong == 0);
}

TEST_CASE_FIXTURE(Fixture, "what is below the shared root moves there only where the kernel does not keep names") {
  const NodeId lib = look_up(anna, kRootId, "lib");
  CHECK(fs->create(anna, lib, "f", 0644, O_RDWR).ok());
  CHECK(fs->rename(anna, lib, "f", kRootId, "planted", 0).error() == EXDEV);
  CHECK(fs->rename(anna, lib, "f", kRootId, "who", os::kExchange).error() == EXDEV);
  CHECK(fs->rename(anna, kRootId, "who", lib, "f", os::kExchange).error() == EXDEV);
  CHECK(fs->rename(anna, kRootId, "who", lib, "who", 0).ok());
  CHECK(fs->rename(anna, lib, "f", lib, "g", 0).ok());
}

TEST_CASE_FIXTURE(Fixture, "files are found after they and their ancestors were renamed, and by every name they have") {
  RedirectFs::Options options;
  options.cache_names = false;
  mount(options);
  const NodeId lib = look_up(anna, kRootId, "lib");
  const NodeId deep = fs->mkdir(anna, lib, "deep", 0755)->id;
  const auto made = fs->create(anna, deep, "f", 0644, O_RDWR);
  REQUIRE(made.ok());
  const NodeId file = made->entry.id;
  REQUIRE(pwrite(made->handle->fd->get(), "text", 4, 0) == 4);
  CHECK(fs->rename(anna, kRootId, "lib", kRootId, "moved", 0).ok());
  CHECK(content(file) == "text");
  CHECK(fs->rename(anna, deep, "f", kRootId, "g", 0).ok());
  CHECK(content(file) == "text");
  CHECK(fs->link(anna, file, deep, "hard").ok());
  CHECK(fs->unlink(anna, kRootId, "g").ok());
  CHECK(content(file) == "text");
  CHECK(fs->rename(anna, deep, "hard", kRootId, "who", os::kExchange).ok());
  CHECK(content(file) == "text");
  CHECK(content(look_up(anna, deep, "hard")) == "anna/local");
  CHECK(fs->unlink(anna, kRootId, "who").ok());
  CHECK(content(file) == "text");
}

TEST_CASE_FIXTURE(Fixture, "a name of a hard link that nobody looked up keeps the file within reach") {
  scratch.make_file("anna/local/one", "text", kAnna);
  REQUIRE(link(scratch.path("anna/local/one").c_str(), scratch.path("anna/local/two").c_str()) == 0);
  const NodeId file = look_up(anna, kRootId, "one");
  CHECK(fs->unlink(anna, kRootId, "one").ok());
  CHECK(content(file) == "text");
  CHECK(look_up(anna, kRootId, "two") == file);
}

TEST_SUITE_END();
