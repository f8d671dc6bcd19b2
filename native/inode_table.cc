#include "inode_table.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "os_calls.h"

namespace obfs {

namespace {

/** A path may be renamed away between being put together and being walked; after so many times the file counts as lost. */
constexpr int kPathTries = 8;

/** One request reads so much. */
constexpr off_t kSmallSize = 128 * 1024;

}  // namespace

FdRef DescriptorCache::find(Node& node) {
  const std::lock_guard lock(mutex_);
  if (node.fd_ != nullptr && !node.is_pinned_) by_use_.splice(by_use_.begin(), by_use_, node.place_);
  return node.fd_;
}

FdRef DescriptorCache::find_readable(Node& node) {
  const std::lock_guard lock(mutex_);
  if (!node.is_readable_) return nullptr;
  if (!node.is_pinned_) by_use_.splice(by_use_.begin(), by_use_, node.place_);
  return node.fd_;
}

FdRef DescriptorCache::find_pinned(Node& node) {
  const std::lock_guard lock(mutex_);
  return node.is_pinned_ ? node.fd_ : nullptr;
}

FdRef DescriptorCache::keep(Node& node, UniqueFd fd) {
  auto opened = std::make_shared<const UniqueFd>(std::move(fd));
  FdRef closed;
  const std::lock_guard lock(mutex_);
  if (node.is_forgotten_) return opened;
  if (node.fd_ == nullptr) {
    node.fd_ = std::move(opened);
    by_use_.push_front(&node);
    node.place_ = by_use_.begin();
    closed = take_least_used();
  }
  return node.fd_;
}

FdRef DescriptorCache::keep_readable(Node& node, UniqueFd fd) {
  auto opened = std::make_shared<const UniqueFd>(std::move(fd));
  FdRef replaced, closed;
  const std::lock_guard lock(mutex_);
  if (node.is_forgotten_ || node.is_readable_) return opened;
  replaced = std::exchange(node.fd_, opened);
  node.is_readable_ = true;
  if (replaced == nullptr) {
    by_use_.push_front(&node);
    node.place_ = by_use_.begin();
    closed = take_least_used();
  }
  return opened;
}

void DescriptorCache::pin(Node& node, FdRef fd) {
  const std::lock_guard lock(mutex_);
  if (node.is_forgotten_ || node.is_pinned_) return;
  if (node.fd_ != nullptr) by_use_.erase(node.place_);
  if (node.fd_ == nullptr || !node.is_readable_) {
    node.fd_ = std::move(fd);
    node.is_readable_ = false;
  }
  node.is_pinned_ = true;
  ++pinned_count_;
}

// Closing the last descriptor of a deleted file frees its blocks: nobody waits for that.
void DescriptorCache::drop(Node& node) {
  FdRef dropped;
  const std::lock_guard lock(mutex_);
  if (node.is_pinned_) {
    --pinned_count_;
  } else if (node.fd_ != nullptr) {
    by_use_.erase(node.place_);
  }
  dropped = std::move(node.fd_);
  node.fd_ = nullptr;
  node.is_readable_ = false;
  node.is_pinned_ = false;
  node.is_forgotten_ = true;
}

// Needs mutex_, and is called after each that is added. What it answers is to be closed without the lock.
FdRef DescriptorCache::take_least_used() {
  if (by_use_.size() <= capacity_) return nullptr;
  Node& last = *by_use_.back();
  by_use_.pop_back();
  last.is_readable_ = false;
  return std::exchange(last.fd_, nullptr);
}

Result<NodeRef> InodeTable::acquire(const TreeRef& tree, FoundFile found, NodeName seen, bool stays_open) {
  const NodeMemory memory = tree->directory->backing().memory();
  if (memory == NodeMemory::kDescriptor && descriptors_.pinned_count() >= options_.pinned_descriptors) {
    if (find(*tree, found.key) == nullptr) return Errno{EMFILE};
  }
  if (memory != NodeMemory::kNames) seen = NodeName{};
  NodeRef node = known_or_new(tree, found.key, std::move(seen));
  if (memory == NodeMemory::kDescriptor) {
    descriptors_.pin(*node, std::make_shared<const UniqueFd>(std::move(found.fd)));
  } else if (stays_open && found.fd.is_open()) {
    (void)descriptors_.keep(*node, std::move(found.fd));
  }
  return node;
}

NodeRef InodeTable::acquire_open(const Tree& tree, const FileKey& key, FdRef& fd) {
  const std::lock_guard lock(mutex_);
  const auto known = by_key_.find(ByKey::Probe{tree.id, key});
  if (known == by_key_.end()) return nullptr;
  fd = descriptors_.find(**known);
  if (fd == nullptr) return nullptr;
  ++(*known)->lookups_;
  return *known;
}

NodeRef InodeTable::known_or_new(const TreeRef& tree, const FileKey& key, NodeName seen) {
  const std::lock_guard lock(mutex_);
  const auto known = by_key_.find(ByKey::Probe{tree->id, key});
  if (known != by_key_.end()) {
    ++(*known)->lookups_;
    if (!seen.name.empty()) add_name_locked(**known, std::move(seen));
    return *known;
  }
  auto node = std::make_shared<Node>(next_id_++, tree, key);
  node->lookups_ = 1;
  if (!seen.name.empty()) add_name_locked(*node, std::move(seen));
  by_id_.insert(node);
  by_key_.insert(node);
  return node;
}

NodeRef InodeTable::find(NodeId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : *found;
}

NodeRef InodeTable::find(const Tree& tree, const FileKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(ByKey::Probe{tree.id, key});
  return found == by_key_.end() ? nullptr : *found;
}

// Nodes are let go of outside the lock: the last of a tree closes the tree.
void InodeTable::forget(NodeId id, uint64_t count) {
  std::vector<NodeRef> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    const NodeRef node = *found;
    uint64_t& lookups = node->lookups_;
    lookups -= std::min(lookups, count);
    erase_if_unused(node, gone);
  }
  for (const NodeRef& node : gone) descriptors_.drop(*node);
}

// Needs mutex_. A directory without kernel references stays as long as its children are found through it.
void InodeTable::erase_if_unused(NodeRef node, std::vector<NodeRef>& gone) {
  if (node->lookups_ > 0 || node->children_ > 0) return;
  by_id_.erase(node);
  by_key_.erase(node);
  gone.push_back(node);
  remove_names_locked(*node, gone);
}

void InodeTable::remove_names_locked(Node& node, std::vector<NodeRef>& gone) {
  std::vector<NodeName> names = std::move(node.names_);
  node.names_.clear();
  for (NodeName& name : names) {
    if (name.parent == nullptr) continue;
    --name.parent->children_;
    erase_if_unused(std::move(name.parent), gone);
  }
}

void InodeTable::add_name(Node& node, NodeName name) {
  if (node.tree->directory->backing().memory() != NodeMemory::kNames) return;
  const std::lock_guard lock(mutex_);
  add_name_locked(node, std::move(name));
}

// The newest name goes first: it is the one most surely still there.
void InodeTable::add_name_locked(Node& node, NodeName name) {
  const auto known = std::find(node.names_.begin(), node.names_.end(), name);
  if (known != node.names_.end()) {
    std::rotate(node.names_.begin(), known, known + 1);
    return;
  }
  if (name.parent != nullptr) ++name.parent->children_;
  if (node.names_.empty()) node.names_.reserve(1);
  node.names_.insert(node.names_.begin(), std::move(name));
}

bool InodeTable::remove_name(Node& node, const NodeName& name) {
  std::vector<NodeRef> gone;
  bool has_others = false;
  {
    const std::lock_guard lock(mutex_);
    const auto known = std::find(node.names_.begin(), node.names_.end(), name);
    if (known != node.names_.end()) {
      NodeRef parent = std::move(known->parent);
      node.names_.erase(known);
      if (parent != nullptr) {
        --parent->children_;
        erase_if_unused(std::move(parent), gone);
      }
    }
    has_others = !node.names_.empty();
  }
  for (const NodeRef& parent : gone) descriptors_.drop(*parent);
  return has_others;
}

std::string InodeTable::current_path(const Node& node) const {
  const std::lock_guard lock(mutex_);
  return path_of(node);
}

// Needs mutex_. A node without names is a tree's root, or lost.
std::string InodeTable::path_of(const Node& node) const {
  std::vector<const std::string*> names;
  size_t length = 1;
  for (const Node* at = &node; at != nullptr && !at->names_.empty(); at = at->names_.front().parent.get()) {
    names.push_back(&at->names_.front().name);
    length += names.back()->size() + 1;
  }
  std::string path = ".";
  path.reserve(length);
  for (auto name = names.rbegin(); name != names.rend(); ++name) path.append("/").append(**name);
  return path;
}

Result<FdRef> InodeTable::descriptor(Node& node) {
  if (FdRef fd = descriptors_.find(node)) return fd;
  auto opened = open(node, os::kNameOnly);
  if (!opened.ok()) return opened.failure();
  return descriptors_.keep(node, *std::move(opened));
}

Result<FdRef> InodeTable::open_anew(Node& node, int flags) {
  auto opened = open(node, flags);
  if (!opened.ok()) return opened.failure();
  return std::make_shared<const UniqueFd>(*std::move(opened));
}

Result<FdRef> InodeTable::readable(Node& node) {
  if (FdRef fd = descriptors_.find_readable(node)) return fd;
  auto opened = open(node, os::access_flags(O_RDONLY));
  if (!opened.ok()) return opened.failure();
  struct stat attr;
  node.is_small = fstat(opened->get(), &attr) == 0 && attr.st_size <= kSmallSize;
  return descriptors_.keep_readable(node, *std::move(opened));
}

// What is pinned has no name that leads to it, or none that is known.
Result<UniqueFd> InodeTable::open(Node& node, int flags) {
  if (const FdRef pinned = descriptors_.find_pinned(node)) return os::reopen(pinned->get(), flags);
  Backing& backing = node.tree->directory->backing();
  const bool by_name = backing.memory() == NodeMemory::kNames;
  std::string path = by_name ? current_path(node) : std::string();
  for (int tries = 1;; ++tries) {
    auto opened = backing.open(node.key, path, flags);
    if (opened.ok() || opened.error() != ESTALE) return opened;
    std::string newer = by_name ? current_path(node) : std::string();
    if (newer == path || tries >= kPathTries) break;
    path = std::move(newer);
  }
  // It may be losing its name at this moment, and be pinned in the next.
  const FdRef cached = descriptors_.find(node);
  if (cached == nullptr) return Errno{ESTALE};
  return os::reopen(cached->get(), flags);
}

size_t InodeTable::size() const {
  const std::lock_guard lock(mutex_);
  return by_id_.size();
}

}  // namespace obfs
