#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "file_key.h"
#include "result.h"
#include "tree.h"
#include "unique_fd.h"

namespace obfs {

using NodeId = uint64_t;
using FdRef = std::shared_ptr<const UniqueFd>;

class Node;
using NodeRef = std::shared_ptr<Node>;

/** A file of one tree that the kernel knows. */
class Node {
 public:
  Node(NodeId node_id, TreeRef node_tree, const FileKey& node_key)
      : id(node_id), tree(std::move(node_tree)), key(node_key) {}

  const NodeId id;
  const TreeRef tree;
  const FileKey key;

 private:
  friend class InodeTable;
  friend class DescriptorCache;
  uint64_t lookups_ = 0;  ///< guarded by InodeTable::mutex_; the kernel's references

  // Guarded by DescriptorCache::mutex_:
  FdRef fd_;
  std::list<Node*>::iterator place_;  ///< in the cache's order of use, while fd_ is set and the node is not pinned
  bool is_pinned_ = false;
  bool is_forgotten_ = false;  ///< a request that still holds the node must not have it cached again
};

/**
 * O_PATH descriptors of nodes: a bounded number, the least recently used closed first. A node whose last name goes while the
 * kernel knows it is pinned: its handle would be stale, so its descriptor stays open as long as the node lives.
 */
class DescriptorCache {
 public:
  explicit DescriptorCache(size_t capacity) : capacity_(capacity) {}

  /** A descriptor of the node; the answer keeps it open. */
  Result<FdRef> open(Node& node);

  /** Keeps a node's descriptor open until the node's end. */
  void pin(Node& node, FdRef fd);

  /** Called when a node is forgotten for good. */
  void drop(Node& node);

 private:
  void keep(Node& node, FdRef fd);
  void shrink();

  const size_t capacity_;
  std::mutex mutex_;
  std::list<Node*> by_use_;  ///< guarded by mutex_; most recent first
};

/**
 * All nodes that the kernel knows, by id and by (tree, key). Ids are given out once and never again, so whatever the kernel has
 * cached under one can only ever be that node's.
 */
class InodeTable {
 public:
  explicit InodeTable(NodeId first_id, size_t descriptors) : next_id_(first_id), descriptors_(descriptors) {}

  /** The node of a file, made where there is none, with one kernel reference more. */
  NodeRef acquire(const TreeRef& tree, const FileKey& key);

  /** The node with this id; null when the kernel should not know it. */
  NodeRef find(NodeId id) const;

  /** The node of a file if the kernel knows it. */
  NodeRef find(const Tree& tree, const FileKey& key) const;

  /** Gives back `count` kernel references; at zero the node is gone. */
  void forget(NodeId id, uint64_t count);

  DescriptorCache& descriptors() { return descriptors_; }
  size_t size() const;

 private:
  struct ByKey {
    using is_transparent = void;
    struct Probe {
      uint64_t tree;
      const FileKey& key;
    };
    static Probe probe(const NodeRef& node) { return {node->tree->id, node->key}; }
    static Probe probe(const Probe& given) { return given; }
    template <typename T>
    size_t operator()(const T& item) const {
      const Probe p = probe(item);
      return p.key.hash() * 31 + p.tree;
    }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      const Probe left = probe(a), right = probe(b);
      return left.tree == right.tree && left.key == right.key;
    }
  };

  mutable std::mutex mutex_;
  NodeId next_id_;                                    ///< guarded by mutex_
  std::unordered_map<NodeId, NodeRef> by_id_;         ///< guarded by mutex_
  std::unordered_set<NodeRef, ByKey, ByKey> by_key_;  ///< guarded by mutex_
  DescriptorCache descriptors_;
};

}  // namespace obfs
