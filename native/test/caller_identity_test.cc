#include "caller_identity.h"

#include <doctest/doctest.h>
#include <grp.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "scratch.h"

using namespace obfs;
using obfs::testing::Scratch;

namespace {

constexpr uid_t kAnna = 7721, kBert = 7722;
constexpr gid_t kClub = 7750;

Status make_in(const std::string& directory, const char* name) {
  UniqueFd fd(open((directory + "/" + name).c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
  return fd.is_open() ? Status() : Status(last_errno());
}

uid_t owner_of(const std::string& path) {
  struct stat attr;
  return stat(path.c_str(), &attr) == 0 ? attr.st_uid : static_cast<uid_t>(-1);
}

/** A process of Anna's with one supplementary group, until the end of the scope. */
class GroupMember {
 public:
  GroupMember() {
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    pid_ = fork();
    if (pid_ == 0) {
      const bool ok = setgroups(1, &kClub) == 0 && setgid(kAnna) == 0 && setuid(kAnna) == 0;
      if (write(ready[1], ok ? "y" : "n", 1) == 1) pause();
      _exit(0);
    }
    char answer = 'n';
    REQUIRE(read(ready[0], &answer, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    REQUIRE(answer == 'y');
  }
  ~GroupMember() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

}  // namespace

TEST_CASE("what is made in a caller's name belongs to the caller, and the daemon is root again afterwards") {
  if (!obfs::testing::is_root()) return;
  Scratch scratch;
  const std::string directory = scratch.make_directory("d", kAnna);
  CHECK(run_as(Identity{kAnna, kAnna, 0}, false, [&] { return make_in(directory, "f"); }).ok());
  CHECK(owner_of(directory + "/f") == kAnna);
  CHECK(run_as(Identity{kBert, kBert, 0}, false, [&] { return make_in(directory, "g"); }).error() == EACCES);
  CHECK(make_in(directory, "h").ok());
  CHECK(owner_of(directory + "/h") == 0);
}

TEST_CASE("identities of threads do not mix") {
  if (!obfs::testing::is_root()) return;
  Scratch scratch;
  const std::string anna = scratch.make_directory("anna", kAnna, 0700);
  const std::string bert = scratch.make_directory("bert", kBert, 0700);
  std::atomic<int> wrong = 0;
  const auto work = [&](uid_t uid, const std::string& own, const std::string& other) {
    for (int i = 0; i < 500; ++i) {
      const std::string name = "f" + std::to_string(i);
      const Identity self{uid, uid, 0};
      if (!run_as(self, false, [&] { return make_in(own, name.c_str()); }).ok()) ++wrong;
      if (run_as(self, false, [&] { return make_in(other, name.c_str()); }).ok()) ++wrong;
    }
  };
  std::thread first(work, kAnna, anna, bert), second(work, kBert, bert, anna);
  first.join();
  second.join();
  CHECK(wrong == 0);
}

TEST_CASE("a right that only a supplementary group gives is found in a second try") {
  if (!obfs::testing::is_root()) return;
  Scratch scratch;
  const std::string directory = scratch.make_directory("club", 0, 0770);
  REQUIRE(chown(directory.c_str(), 0, kClub) == 0);
  const GroupMember member;
  CHECK(supplementary_groups(member.pid()) == std::vector<gid_t>{kClub});
  CHECK(run_as(Identity{kAnna, kAnna, member.pid()}, false, [&] { return make_in(directory, "f"); }).ok());
  CHECK(run_as(Identity{kBert, kBert, 0}, false, [&] { return make_in(directory, "g"); }).error() == EACCES);
  CHECK(getgroups(0, nullptr) >= 0);
}

TEST_CASE("a group that is granted less than others stays refused when its groups are asked for first") {
  if (!obfs::testing::is_root()) return;
  Scratch scratch;
  const std::string directory = scratch.make_directory("banned", 0, 0707);
  REQUIRE(chown(directory.c_str(), 0, kClub) == 0);
  const GroupMember member;
  const Identity anna{kAnna, kAnna, member.pid()};
  CHECK(run_as(anna, true, [&] { return make_in(directory, "f"); }).error() == EACCES);
  const Identity killed{kAnna, kAnna, 0};
  CHECK(run_as(killed, true, [&] { return make_in(directory, "f"); }).error() == EACCES);
}

TEST_CASE("the groups of a process that is gone are unknown, not none") { CHECK(!supplementary_groups(0).has_value()); }
