#include "tree.h"

#include "os_calls.h"

namespace obfs {

namespace {

uint64_t next_tree_id() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

// Bits of an inode number that name the device where it is not the tree root's; real inode numbers rarely reach them.
constexpr int kDeviceShift = 56;

}  // namespace

Result<std::shared_ptr<TreeDirectory>> TreeDirectory::open(UniqueFd root, BackingKind kind) {
  auto directory = std::make_shared<TreeDirectory>();
  if (fstat(root.get(), &directory->attr_) != 0) return last_errno();
  if (!S_ISDIR(directory->attr_.st_mode)) return Errno{ENOTDIR};
  auto backing = make_backing(kind, root.get());
  if (!backing.ok()) return backing.failure();
  directory->backing_ = *std::move(backing);
  directory->is_local_ = os::is_local(root.get());
  directory->root_ = std::move(root);
  return directory;
}

TreeRef TreeDirectory::view(Door door, Viewer viewer) {
  const std::lock_guard lock(mutex_);
  const auto [current, is_first] = views_.try_emplace(ViewKey{door, viewer});
  TreeRef view = current->second.lock();
  const bool is_outdated = view != nullptr && view->is_outdated();
  if (view == nullptr || is_outdated) {
    view = std::make_shared<Tree>(shared_from_this(), door, viewer);
    current->second = view;
    if (is_first || is_outdated) ++statistics.generations;  // one that nothing is known of any more is no new one
  }
  return view;
}

void TreeDirectory::start_new_generation() {
  const std::lock_guard lock(mutex_);
  views_.clear();
}

ino_t TreeDirectory::shown_inode(const struct stat& attr) {
  if (attr.st_dev == attr_.st_dev) return attr.st_ino;
  const std::lock_guard lock(mutex_);
  const ino_t index = devices_.try_emplace(attr.st_dev, devices_.size() + 1).first->second;
  return attr.st_ino ^ (index << kDeviceShift);
}

Tree::Tree(std::shared_ptr<TreeDirectory> shown, Door through, Viewer seen_by)
    : id(next_tree_id()),
      directory(std::move(shown)),
      door(through),
      viewer(seen_by),
      changes_at_start_(directory->changes_) {}

// Own changes are counted first: a reader in between sees too few foreign ones, never a false one.
void Tree::note_change() {
  ++own_changes_;
  ++directory->changes_;
}

void Tree::begin_unseen_writes() {
  ++own_unseen_writers_;
  ++directory->unseen_writers_;
}

void Tree::end_unseen_writes() {
  note_change();
  --directory->unseen_writers_;
  --own_unseen_writers_;
}

bool Tree::is_outdated() const {
  return directory->changes_ - changes_at_start_ > own_changes_ || directory->unseen_writers_ > own_unseen_writers_;
}

Identity Tree::identity_of(const Caller& caller) const {
  if (is_mapped() && caller.uid == viewer.uid) {
    return Identity{directory->owner_uid(), directory->owner_gid(), caller.pid};
  }
  return Identity{caller.uid, caller.gid, caller.pid};
}

void Tree::show(struct stat& attr) const {
  attr.st_ino = directory->shown_inode(attr);
  if (!is_mapped()) return;
  if (attr.st_uid == directory->owner_uid()) attr.st_uid = viewer.uid;
  if (attr.st_gid == directory->owner_gid()) attr.st_gid = viewer.gid;
}

uid_t Tree::stored_uid(uid_t shown) const {
  return is_mapped() && shown == viewer.uid ? directory->owner_uid() : shown;
}

gid_t Tree::stored_gid(gid_t shown) const {
  return is_mapped() && shown == viewer.gid ? directory->owner_gid() : shown;
}

thread_local RequestCount* RequestCount::current_ = nullptr;

void RequestCount::is_for(const Tree& tree) {
  if (current_ == nullptr || current_->directory_ != nullptr) return;
  current_->directory_ = tree.directory;
  ++tree.directory->statistics.operations;
}

void RequestCount::ends_with(int error) {
  const bool is_absence = error == ENOENT || error == os::kNoAttribute;
  if (error == 0 || is_absence || current_ == nullptr || current_->directory_ == nullptr) return;
  ++current_->directory_->statistics.errors;
}

}  // namespace obfs
