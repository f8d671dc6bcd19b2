#include "inode_table.h"

#include <fcntl.h>

#include <algorithm>

namespace obfs {

namespace {

#ifdef __APPLE__
constexpr int kOpenPath = O_RDONLY | O_SYMLINK | O_EVTONLY;
#else
constexpr int kOpenPath = O_PATH | O_NOFOLLOW;
#endif

}  // namespace

Result<FdRef> DescriptorCache::open(Node& node) {
  {
    const std::lock_guard lock(mutex_);
    if (node.fd_ != nullptr) {
      if (!node.is_pinned_) by_use_.splice(by_use_.begin(), by_use_, node.place_);
      return node.fd_;
    }
  }
  auto fd = node.tree->directory->backing().open(node.key, kOpenPath);
  if (!fd.ok()) return fd.failure();
  auto opened = std::make_shared<const UniqueFd>(*std::move(fd));
  const std::lock_guard lock(mutex_);
  if (node.is_forgotten_) return opened;
  if (node.fd_ == nullptr) keep(node, std::move(opened));
  return node.fd_;
}

void DescriptorCache::pin(Node& node, FdRef fd) {
  const std::lock_guard lock(mutex_);
  if (node.is_forgotten_) return;
  if (node.fd_ != nullptr && !node.is_pinned_) by_use_.erase(node.place_);
  node.fd_ = std::move(fd);
  node.is_pinned_ = true;
}

void DescriptorCache::drop(Node& node) {
  const std::lock_guard lock(mutex_);
  if (node.fd_ != nullptr && !node.is_pinned_) by_use_.erase(node.place_);
  node.fd_ = nullptr;
  node.is_pinned_ = false;
  node.is_forgotten_ = true;
}

// Needs mutex_.
void DescriptorCache::keep(Node& node, FdRef fd) {
  node.fd_ = std::move(fd);
  by_use_.push_front(&node);
  node.place_ = by_use_.begin();
  shrink();
}

// Needs mutex_. A descriptor in use by another thread closes when that lets go of it.
void DescriptorCache::shrink() {
  while (by_use_.size() > capacity_) {
    by_use_.back()->fd_ = nullptr;
    by_use_.pop_back();
  }
}

NodeRef InodeTable::acquire(const TreeRef& tree, const FileKey& key) {
  const std::lock_guard lock(mutex_);
  const auto known = by_key_.find(ByKey::Probe{tree->id, key});
  if (known != by_key_.end()) {
    ++(*known)->lookups_;
    return *known;
  }
  auto node = std::make_shared<Node>(next_id_++, tree, key);
  node->lookups_ = 1;
  by_id_.emplace(node->id, node);
  by_key_.insert(node);
  return node;
}

NodeRef InodeTable::find(NodeId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

NodeRef InodeTable::find(const Tree& tree, const FileKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(ByKey::Probe{tree.id, key});
  return found == by_key_.end() ? nullptr : *found;
}

void InodeTable::forget(NodeId id, uint64_t count) {
  NodeRef gone;
  {
    const std::lock_guard lock(mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    uint64_t& lookups = found->second->lookups_;
    lookups -= std::min(lookups, count);
    if (lookups > 0) return;
    gone = std::move(found->second);
    by_id_.erase(found);
    by_key_.erase(gone);
  }
  descriptors_.drop(*gone);
}

size_t InodeTable::size() const {
  const std::lock_guard lock(mutex_);
  return by_id_.size();
}

}  // namespace obfs
