#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "file_key.h"
#include "result.h"
#include "tree.h"
#include "unique_fd.h"

namespace obfs {

using NodeId = uint64_t;
using FdRef = std::shared_ptr<const UniqueFd>;

class Node;
using NodeRef = std::shared_ptr<Node>;

/** Where a node was seen: a name in a directory. Without a parent the directory is the tree's root. */
struct NodeName {
  NodeRef parent;
  std::string name;
  bool operator==(const NodeName& other) const { return parent == other.parent && name == other.name; }
};

/** A file of one tree that the kernel knows. */
class Node {
 public:
  Node(NodeId node_id, TreeRef node_tree, const FileKey& node_key)
      : id(node_id), tree(std::move(node_tree)), key(node_key) {
    ++tree->directory->statistics.known_nodes;
  }
  ~Node() { --tree->directory->statistics.known_nodes; }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const NodeId id;
  const TreeRef tree;
  const FileKey key;

  std::atomic<bool> is_small = false;            ///< it was when its descriptor was opened for reading
  std::atomic<bool> has_outdated_pages = false;  ///< what the kernel keeps of it may be older than the file

 private:
  friend class InodeTable;
  friend class DescriptorCache;

  // Guarded by InodeTable::mutex_:
  uint64_t lookups_ = 0;         ///< the kernel's references
  uint64_t children_ = 0;        ///< names that have it as their parent
  std::vector<NodeName> names_;  ///< with backings that find files by names; the first is the one in use

  // Guarded by DescriptorCache::mutex_:
  FdRef fd_;
  std::list<Node*>::iterator place_;  ///< in the cache's order of use, while fd_ is set and the node is not pinned
  bool is_pinned_ = false;
  bool is_readable_ = false;   ///< fd_ can be read from; else it only names the file
  bool is_forgotten_ = false;  ///< a request that still holds the node must not have it cached again
};

/**
 * Descriptors that name nodes: a bounded number, the least recently used closed first. A node whose last name goes while the
 * kernel knows it is pinned: nothing finds it any more, so its descriptor stays open as long as the node lives.
 */
class DescriptorCache {
 public:
  explicit DescriptorCache(size_t capacity) : capacity_(capacity) {}

  /** The node's descriptor, if it is open. */
  FdRef find(Node& node);

  /** As `find`, if it can be read from. */
  FdRef find_readable(Node& node);

  /** As `find`, for pinned nodes alone. */
  FdRef find_pinned(Node& node);

  /** Takes in a descriptor just opened; the answer is the node's, perhaps one that another thread was faster to open. */
  FdRef keep(Node& node, UniqueFd fd);

  /** As `keep`, for one that can be read from: it takes the place of one that cannot. */
  FdRef keep_readable(Node& node, UniqueFd fd);

  /** Keeps a node's descriptor open until the node's end. */
  void pin(Node& node, FdRef fd);

  /** Called when a node is forgotten for good. */
  void drop(Node& node);

  size_t pinned_count() const { return pinned_count_; }

 private:
  FdRef take_least_used();

  const size_t capacity_;
  std::mutex mutex_;
  std::list<Node*> by_use_;               ///< guarded by mutex_; most recent first
  std::atomic<size_t> pinned_count_ = 0;  ///< written under mutex_
};

/**
 * All nodes that the kernel knows, by id and by (tree, key). Ids are given out once and never again, so whatever the kernel has
 * cached under one can only ever be that node's.
 *
 * Where files are found by their names, a node remembers those it was seen under, and its parents stay known for as long as it is.
 */
class InodeTable {
 public:
  struct Options {
    NodeId first_id;
    size_t cached_descriptors;  ///< open at once for nodes that are not pinned
    size_t pinned_descriptors;  ///< how many nodes may be known by a descriptor each
  };

  explicit InodeTable(Options options)
      : options_(options), next_id_(options.first_id), descriptors_(options.cached_descriptors) {}

  /**
   * The node of a file that was found under `seen`, made where there is none, with one kernel reference more.
   * EMFILE when the backing needs a descriptor for each node, and there are no more. `stays_open`: its descriptor is soon needed
   * again.
   */
  Result<NodeRef> acquire(const TreeRef& tree, FoundFile found, NodeName seen, bool stays_open = false);

  /** A node that is known and whose descriptor is open, with one kernel reference more; else null. */
  NodeRef acquire_open(const Tree& tree, const FileKey& key, FdRef& fd);

  /** The node with this id; null when the kernel should not know it. */
  NodeRef find(NodeId id) const;

  /** The node of a file if the kernel knows it. */
  NodeRef find(const Tree& tree, const FileKey& key) const;

  /** Gives back `count` kernel references; at zero the node is gone. */
  void forget(NodeId id, uint64_t count);

  /** A descriptor that names the node's file; the answer keeps it open. ESTALE when it is not to be found any more. */
  Result<FdRef> descriptor(Node& node);

  /** As `descriptor`, of the node's regular file or directory opened for reading. */
  Result<FdRef> readable(Node& node);

  /** As `open`, for a user of its own. */
  Result<FdRef> open_anew(Node& node, int flags);

  /** Opens the node's file with open(2) flags. */
  Result<UniqueFd> open(Node& node, int flags);

  /** The node's file has lost its last name: from now on only its descriptor leads to it. */
  void keep_nameless(Node& node, FdRef fd) { descriptors_.pin(node, std::move(fd)); }

  /** A name was taken away. Answers whether the node is known under another one. */
  bool remove_name(Node& node, const NodeName& name);
  void add_name(Node& node, NodeName name);

  size_t size() const;

 private:
  // With hash functions that do not throw, the sets keep no hashes: 16 bytes for each known file.
  struct ById {
    using is_transparent = void;
    static NodeId id_of(const NodeRef& node) { return node->id; }
    static NodeId id_of(NodeId id) { return id; }
    template <typename T>
    size_t operator()(const T& item) const noexcept {
      return std::hash<NodeId>()(id_of(item));
    }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const noexcept {
      return id_of(a) == id_of(b);
    }
  };
  struct ByKey {
    using is_transparent = void;
    struct Probe {
      uint64_t tree;
      const FileKey& key;
    };
    static Probe probe(const NodeRef& node) { return {node->tree->id, node->key}; }
    static Probe probe(const Probe& given) { return given; }
    template <typename T>
    size_t operator()(const T& item) const noexcept {
      const Probe p = probe(item);
      return p.key.hash() * 31 + p.tree;
    }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const noexcept {
      const Probe left = probe(a), right = probe(b);
      return left.tree == right.tree && left.key == right.key;
    }
  };

  NodeRef known_or_new(const TreeRef& tree, const FileKey& key, NodeName seen);
  std::string path_of(const Node& node) const;
  std::string current_path(const Node& node) const;
  void add_name_locked(Node& node, NodeName name);
  void remove_names_locked(Node& node, std::vector<NodeRef>& gone);
  void erase_if_unused(NodeRef node, std::vector<NodeRef>& gone);

  const Options options_;
  mutable std::mutex mutex_;
  NodeId next_id_;                                    ///< guarded by mutex_
  std::unordered_set<NodeRef, ById, ById> by_id_;     ///< guarded by mutex_
  std::unordered_set<NodeRef, ByKey, ByKey> by_key_;  ///< guarded by mutex_
  DescriptorCache descriptors_;
};

}  // namespace obfs
