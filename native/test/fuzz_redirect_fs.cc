#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fuzz.h"
#include "redirect_fs.h"
#include "scratch.h"

using namespace obfs;
using obfs::testing::Fuzz;
using obfs::testing::open_descriptors;
using obfs::testing::Scratch;

namespace {

constexpr uid_t kAnna = 7721, kBert = 7722, kCarl = 7723, kDora = 7724;

/** Everything below a directory, and what tells whether it was touched. */
std::map<std::string, std::string> contents(const std::string& directory) {
  std::map<std::string, std::string> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    struct stat attr;
    REQUIRE(lstat(entry.path().c_str(), &attr) == 0);
    found[entry.path()] = std::to_string(attr.st_mode) + " " + std::to_string(attr.st_uid) + " " +
                          std::to_string(attr.st_nlink) + " " + std::to_string(attr.st_mtim.tv_sec) + "." +
                          std::to_string(attr.st_mtim.tv_nsec) + " " + std::to_string(attr.st_ctim.tv_nsec);
  }
  return found;
}

/**
 * A kernel that has lost its mind: it asks for anything, in any order, about nodes that it knows, knew or made up. It keeps count of
 * the references it was given, as a real one does.
 */
class MadKernel {
 public:
  MadKernel(Fuzz& fuzz, BackingKind backing) : fuzz_(fuzz), backing_(backing) {
    scratch_.make_directory("scoreboard");
    scratch_.make_directory("covered");
    scratch_.make_directory("outside", 0, 0777);
    scratch_.make_file("outside/secret", "secret");
    for (const auto& [name, uid] : {std::pair("anna/local", kAnna), {"bert/local", kBert}}) {
      scratch_.make_directory(name, uid);
      for (const char* const below : {"/a", "/a/b", "/c"}) scratch_.make_directory(std::string(name) + below, uid);
      scratch_.make_file(std::string(name) + "/d", "text", uid);
      (void)!symlink(scratch_.path("outside").c_str(), scratch_.path(std::string(name) + "/e").c_str());
    }
    scratch_.point("7721", scratch_.path("anna"));
    scratch_.point("7722", scratch_.path("bert"));
    scratch_.point("7724", "/nowhere");
    outside_ = contents(scratch_.path("outside"));
    covered_ = contents(scratch_.path("covered"));
    RedirectFs::Options options;
    options.trees = {.scoreboard = scratch_.path("scoreboard"),
                     .rules = {"local", ""},
                     .map_owner = fuzz.below(2) == 0,
                     .backing = backing};
    options.doors_name = ".doors";
    options.cache_names = fuzz.below(2) == 0;
    options.cached_descriptors = 1 + fuzz.below(8);
    options.pinned_descriptors = 64;
    fs_ = std::make_unique<RedirectFs>(options, scratch_.directory("covered", backing));
  }

  void ask() {
    const Caller caller = any_caller();
    const NodeId id = any_id();
    const std::string name = fuzz_.below(40) == 0 ? ".doors" : fuzz_.any_name();
    switch (fuzz_.below(26)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return took(fs_->lookup(caller, id, name.c_str()));
      case 4:
        return look_up_door(caller);
      case 5:
        return took(fs_->mkdir(caller, id, name.c_str(), any_mode()));
      case 6:
        return took(
            fs_->mknod(caller, id, name.c_str(), any_mode() | fuzz_.pick<mode_t>({S_IFIFO, S_IFREG, S_IFSOCK}), 0));
      case 7:
        return took(
            fs_->symlink(caller, id, name.c_str(), fuzz_.pick<const char*>({"/etc/passwd", "../../outside", "a"})));
      case 8:
        return took(fs_->link(caller, id, any_id(), name.c_str()));
      case 9:
        return (void)fs_->unlink(caller, id, name.c_str());
      case 10:
        return (void)fs_->rmdir(caller, id, name.c_str());
      case 11:
        return (void)fs_->rename(caller, id, name.c_str(), any_id(), fuzz_.any_name().c_str(),
                                 fuzz_.pick<unsigned>({0, 0, 0, 1, 2, 3, 4, ~0u}));
      case 12:
        return create(caller, id, name);
      case 13:
        return open(id);
      case 14:
        return use_file();
      case 15:
        return (void)fs_->getattr(caller, id, nullptr);
      case 16:
        return (void)fs_->setattr(caller, id, any_change(), any_file());
      case 17:
        return (void)fs_->readlink(id);
      case 18:
        return (void)fs_->access(caller, id, static_cast<int>(fuzz_.below(9)));
      case 19:
        return (void)fs_->statfs(caller, id);
      case 20:
        return list(caller, id);
      case 21:
        return attributes(caller, id);
      case 22:
        return fs_->forget(any_unknown_id(), fuzz_.below(3));
      case 23:
        return give_back();
      case 24:
        return rewrite();
      default:
        files_.erase(std::remove_if(files_.begin(), files_.end(), [&](const auto&) { return fuzz_.below(4) == 0; }),
                     files_.end());
        return;
    }
  }

  /** Forgets everything; nothing may be left, and nothing outside of the trees touched. */
  void end() {
    files_.clear();
    for (const auto& [id, count] : references_) fs_->forget(id, count);
    CHECK(fs_->known_nodes() == 0);
    fs_.reset();
    CHECK(contents(scratch_.path("outside")) == outside_);
    CHECK(contents(scratch_.path("covered")) == covered_);
  }

 private:
  Caller any_caller() {
    const uid_t uid = fuzz_.pick<uid_t>({kAnna, kAnna, kBert, kBert, kCarl, kDora, 0, static_cast<uid_t>(-2)});
    // Root is asked about trees alone: it may change the covered directory.
    return uid == 0 ? Caller{kAnna, 0, getpid()} : Caller{uid, uid, fuzz_.pick<pid_t>({0, getpid(), 99999999, -1})};
  }

  NodeId any_id() {
    const size_t kind = fuzz_.below(16);
    if (kind < 4) return kRootId;
    if (kind == 4) return any_unknown_id();
    if (known_.empty()) return kRootId;
    return known_[fuzz_.below(known_.size())];  // perhaps forgotten since
  }
  NodeId any_unknown_id() {
    return fuzz_.pick<NodeId>({0, kDoorsId, kDoorsId + 1, kFirstNodeId - 1, 1u << 30, ~NodeId{0}});
  }
  mode_t any_mode() { return static_cast<mode_t>(fuzz_.below(010000)); }

  void took(const Result<Entry>& entry) {
    if (!entry.ok() || entry->id == 0 || entry->id == kDoorsId) return;
    ++references_[entry->id];
    known_.push_back(entry->id);
  }

  void look_up_door(const Caller& caller) {
    const std::string door =
        fuzz_.pick<std::string>({"7721.7721.x", "7722.7722.y", "7724.1.x", "7723.1.x", "1", "1.", "1.1", "1.1.",
                                 "-1.1.x", "99999999999999999999.1.x", "7721.7721.x/.."});
    took(fs_->lookup(fuzz_.below(2) == 0 ? Caller{0, 0, getpid()} : caller, kDoorsId, door.c_str()));
  }

  void create(const Caller& caller, NodeId parent, const std::string& name) {
    auto made = fs_->create(caller, parent, name.c_str(), any_mode(), any_flags());
    if (!made.ok()) return;
    took(made->entry);
    files_.push_back(std::move(made->handle));
  }
  int any_flags() {
    return fuzz_.pick({O_RDONLY, O_WRONLY, O_RDWR, O_ACCMODE}) |
           static_cast<int>(fuzz_.below(1u << 22) & ~static_cast<unsigned>(O_ACCMODE));
  }

  void open(NodeId id) {
    auto opened = fs_->open(id, any_flags());
    if (opened.ok()) files_.push_back(*std::move(opened));
  }
  const FileHandle* any_file() {
    return files_.empty() || fuzz_.below(2) == 0 ? nullptr : files_[fuzz_.below(files_.size())].get();
  }

  void use_file() {
    const FileHandle* const file = any_file();
    if (file == nullptr) return;
    if (fuzz_.below(2) == 0) (void)fs_->clear_set_ids(*file);
    (void)!pwrite(file->fd->get(), "mad", 3, static_cast<off_t>(fuzz_.below(5000)));
    fs_->wrote(*file);
    (void)fs_->fallocate(*file, static_cast<int>(fuzz_.below(64)), static_cast<off_t>(fuzz_.below(9000)) - 10,
                         static_cast<off_t>(fuzz_.below(9000)) - 10);
  }

  AttributeChange any_change() {
    AttributeChange change;
    change.clears_set_ids = fuzz_.below(2) == 0;
    if (fuzz_.below(3) == 0) change.mode = any_mode();
    if (fuzz_.below(3) == 0)
      change.uid = fuzz_.pick<uid_t>({0, kAnna, kBert, static_cast<uid_t>(-1), static_cast<uid_t>(-2)});
    if (fuzz_.below(3) == 0) change.gid = fuzz_.pick<gid_t>({0, kAnna, kBert, static_cast<gid_t>(-1)});
    if (fuzz_.below(3) == 0) change.size = fuzz_.pick<off_t>({0, 1, 4097, -1, off_t{1} << 40, INT64_MAX});
    if (fuzz_.below(3) == 0)
      change.atime =
          timespec{fuzz_.pick<time_t>({0, -1, INT64_MAX, 1 << 30}), fuzz_.pick<long>({0, UTIME_NOW, UTIME_OMIT, -1})};
    if (fuzz_.below(3) == 0)
      change.mtime = timespec{fuzz_.pick<time_t>({0, -1, INT64_MAX}), fuzz_.pick<long>({0, UTIME_NOW, 1000000000})};
    return change;
  }

  void list(const Caller& caller, NodeId id) {
    auto handle = fs_->opendir(caller, id);
    if (!handle.ok()) return;
    off_t offset = fuzz_.below(4) == 0 ? static_cast<off_t>(fuzz_.below(1000)) : 0;
    for (int part = 0; part < 3; ++part) {
      size_t room = fuzz_.below(6);
      (void)fs_->readdir(caller, **handle, offset, fuzz_.below(2) == 0,
                         [&](const char*, off_t next, const Entry& entry) {
                           if (room-- == 0) return false;
                           if (entry.id != 0) took(entry);
                           offset = next;
                           return true;
                         });
    }
    (void)fs_->fsyncdir(**handle, fuzz_.below(2) == 0);
  }

  void attributes(const Caller& caller, NodeId id) {
    const std::string name = fuzz_.pick<std::string>(
        {"user.a", "user.b", "", "user.", "odd", "trusted.x", "system.posix_acl_access", std::string(300, 'x')});
    const size_t size = fuzz_.pick<size_t>({0, 1, 64, 65536, 1 << 20});
    (void)fs_->getxattr(caller, id, name.c_str(), size);
    (void)fs_->listxattr(caller, id, size);
    const std::string value = fuzz_.bytes(fuzz_.below(70));
    (void)fs_->setxattr(caller, id, name.c_str(), value.data(), value.size(), static_cast<int>(fuzz_.below(5)));
    (void)fs_->removexattr(caller, id, name.c_str());
  }

  void give_back() {
    if (references_.empty()) return;
    auto some = references_.begin();
    std::advance(some, fuzz_.below(references_.size()));
    const uint64_t count = 1 + fuzz_.below(some->second);
    fs_->forget(some->first, count);
    some->second -= count;
    if (some->second == 0) references_.erase(some);
  }

  void rewrite() {
    const std::string target =
        fuzz_.pick<std::string>({scratch_.path("anna"), scratch_.path("bert"), scratch_.path("anna"), "/nowhere"});
    scratch_.point(fuzz_.pick<const char*>({"7721", "7722"}), target);
  }

  Fuzz& fuzz_;
  const BackingKind backing_;
  Scratch scratch_;
  std::map<std::string, std::string> outside_, covered_;
  std::unique_ptr<RedirectFs> fs_;
  std::vector<std::unique_ptr<FileHandle>> files_;
  std::map<NodeId, uint64_t> references_;
  std::vector<NodeId> known_;
};

}  // namespace

TEST_SUITE_BEGIN("fuzz");

TEST_CASE(
    "fuzz: no sequence of requests crashes it, leaks a node or a descriptor, or changes anything outside of the "
    "trees") {
  if (!obfs::testing::is_root()) return;
  umask(0);
  Fuzz fuzz("requests");
  const size_t descriptors_before = open_descriptors();
  while (fuzz.goes_on()) {
    MadKernel kernel(fuzz, fuzz.pick({BackingKind::kHandles, BackingKind::kPaths, BackingKind::kDescriptors}));
    for (int step = 0; step < 1500; ++step) kernel.ask();
    kernel.end();
  }
  CHECK(open_descriptors() == descriptors_before);
}

TEST_SUITE_END();
