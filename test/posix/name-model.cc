#include <cerrno>
#include <map>
#include <memory>

#include "models.h"
#include "suite.h"

namespace posix {

namespace {

struct Node;
using NodePtr = std::shared_ptr<Node>;

/** A file, directory or symbolic link as it should be. */
struct Node {
  mode_t type;
  mode_t mode;
  std::string content;  ///< or where the link leads
  unsigned names = 0;   ///< of a file or link
  std::map<std::string, NodePtr> children;
};

class NameModel {
 public:
  NameModel(const std::string& folder, uint32_t seed)
      : folder_(folder), dice_(seed), root_(std::make_shared<Node>(Node{S_IFDIR, 0, "", 0, {}})) {}

  void step() {
    const Place at = any_place();
    switch (dice_.below(11)) {
      case 0: case 1: return create(at);
      case 2: return make_directory(at);
      case 3: return make_symlink(at);
      case 4: return make_link(at, any_place());
      case 5: case 6: return move(at, any_place());
      case 7: return remove_file(at);
      case 8: return remove_directory(at);
      case 9: return change_mode(at);
      default: return check(at);
    }
  }

  void check_all() { check_below(root_, folder_); }

 private:
  /** A name in a directory that is there. */
  struct Place {
    NodePtr parent;
    std::string name;
    std::string path;
    std::vector<NodePtr> ancestors;  ///< the parent last
    NodePtr node() const {
      const auto found = parent->children.find(name);
      return found == parent->children.end() ? nullptr : found->second;
    }
  };

  Place any_place() {
    NodePtr parent = root_;
    std::string path = folder_;
    std::vector<NodePtr> ancestors = {root_};
    for (size_t depth = dice_.below(4); depth > 0; --depth) {
      std::vector<std::pair<std::string, NodePtr>> below;
      for (const auto& child : parent->children) {
        if (child.second->type == S_IFDIR) below.push_back(child);
      }
      if (below.empty()) break;
      const auto& [name, node] = below[dice_.below(below.size())];
      path += "/" + name;
      parent = node;
      ancestors.push_back(parent);
    }
    const std::string name(1, static_cast<char>('a' + dice_.below(8)));
    return {parent, name, path + "/" + name, ancestors};
  }

  /** Compares how a call ended with how it should: 0 or an errno. */
  void expect(int result, int error, const std::string& call) {
    const int got = result == -1 ? errno : 0;
    if (got != error) fail(__FILE__, __LINE__, call + ": " + error_name(got) + ", not " + error_name(error));
  }

  static void add(const Place& at, const NodePtr& node) {
    at.parent->children[at.name] = node;
    ++node->names;
  }
  static void take(const Place& at) {
    --at.node()->names;
    at.parent->children.erase(at.name);
  }

  void create(const Place& at) {
    const int fd = open(at.path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0644);
    expect(fd, at.node() == nullptr ? 0 : EEXIST, "create " + at.path);
    if (fd < 0) return;
    const std::string content = std::to_string(dice_.below(1000000));
    write_at(Fd(fd), content, 0);
    add(at, std::make_shared<Node>(Node{S_IFREG, 0644, content, 0, {}}));
  }
  void make_directory(const Place& at) {
    const int error = at.node() == nullptr ? 0 : EEXIST;
    expect(mkdir(at.path.c_str(), 0755), error, "mkdir " + at.path);
    if (error == 0) add(at, std::make_shared<Node>(Node{S_IFDIR, 0755, "", 0, {}}));
  }
  void make_symlink(const Place& at) {
    const std::string target = "target" + std::to_string(dice_.below(1000));
    const int error = at.node() == nullptr ? 0 : EEXIST;
    expect(symlink(target.c_str(), at.path.c_str()), error, "symlink " + at.path);
    if (error == 0) add(at, std::make_shared<Node>(Node{S_IFLNK, 0777, target, 0, {}}));
  }
  void make_link(const Place& from, const Place& to) {
    const NodePtr node = from.node();
    int error = 0;
    if (node == nullptr) error = ENOENT;
    else if (to.node() != nullptr) error = EEXIST;
    else if (node->type == S_IFDIR) error = EPERM;
    expect(link(from.path.c_str(), to.path.c_str()), error, "link " + from.path + " " + to.path);
    if (error == 0) add(to, node);
  }

  static bool is_within(const Place& place, const NodePtr& node) {
    for (const NodePtr& ancestor : place.ancestors) {
      if (ancestor == node) return true;
    }
    return false;
  }
  static int error_of_move(const Place& from, const Place& to) {
    const NodePtr node = from.node(), other = to.node();
    if (node == nullptr) return ENOENT;
    if (is_within(to, node)) return EINVAL;
    if (other != nullptr && is_within(from, other)) return ENOTEMPTY;
    if (other == nullptr || node == other) return 0;
    if (node->type == S_IFDIR && other->type != S_IFDIR) return ENOTDIR;
    if (node->type != S_IFDIR && other->type == S_IFDIR) return EISDIR;
    return other->children.empty() ? 0 : ENOTEMPTY;
  }
  void move(const Place& from, const Place& to) {
    const int error = error_of_move(from, to);
    expect(rename(from.path.c_str(), to.path.c_str()), error, "rename " + from.path + " " + to.path);
    const NodePtr node = from.node();
    if (error != 0 || node == to.node()) return;
    if (to.node() != nullptr) take(to);
    take(from);
    add(to, node);
  }

  void remove_file(const Place& at) {
    const NodePtr node = at.node();
    const int error = node == nullptr ? ENOENT : node->type == S_IFDIR ? EISDIR : 0;
    expect(unlink(at.path.c_str()), error, "unlink " + at.path);
    if (error == 0) take(at);
  }
  void remove_directory(const Place& at) {
    const NodePtr node = at.node();
    const int error = node == nullptr          ? ENOENT
                      : node->type != S_IFDIR  ? ENOTDIR
                      : node->children.empty() ? 0
                                               : ENOTEMPTY;
    expect(rmdir(at.path.c_str()), error, "rmdir " + at.path);
    if (error == 0) take(at);
  }
  void change_mode(const Place& at) {
    const NodePtr node = at.node();
    if (node == nullptr || node->type == S_IFLNK) return;
    node->mode = static_cast<mode_t>(dice_.below(01000));
    expect(chmod(at.path.c_str(), node->mode), 0, "chmod " + at.path);
  }

  void check(const Place& at) {
    const NodePtr node = at.node();
    struct stat attr;
    expect(lstat(at.path.c_str(), &attr), node == nullptr ? ENOENT : 0, "lstat " + at.path);
    if (node != nullptr) check_node(node, at.path);
  }
  void check_node(const NodePtr& node, const std::string& path) {
    const struct stat attr = lstat_of(path);
    if (attr.st_mode != (node->type | node->mode)) fail(__FILE__, __LINE__, path + " has another type or mode");
    if (node->type != S_IFDIR && attr.st_nlink != node->names) {
      fail(__FILE__, __LINE__, path + " has " + std::to_string(attr.st_nlink) + " links, not " + std::to_string(node->names));
    }
    if (node->type == S_IFREG && read_file(path) != node->content) fail(__FILE__, __LINE__, path + " has another content");
    if (node->type == S_IFLNK) check_target(path, node->content);
    if (node->type == S_IFDIR) check_listing(node, path);
  }
  static void check_target(const std::string& path, const std::string& expected) {
    char target[100];
    const auto size = static_cast<size_t>(OK(readlink(path.c_str(), target, sizeof target)));
    CHECK_EQ(std::string(target, size), expected);
  }
  static void check_listing(const NodePtr& node, const std::string& path) {
    std::vector<std::string> names;
    for (const auto& child : node->children) names.push_back(child.first);
    if (names_in(path) != names) fail(__FILE__, __LINE__, path + " lists other names");
  }
  void check_below(const NodePtr& directory, const std::string& path) {
    check_listing(directory, path);
    for (const auto& [name, node] : directory->children) {
      check_node(node, path + "/" + name);
      if (node->type == S_IFDIR) check_below(node, path + "/" + name);
    }
  }

  const std::string folder_;
  Dice dice_;
  const NodePtr root_;
};

}  // namespace

void run_name_model(const std::string& folder, uint32_t seed, long operations) {
  NameModel model(folder, seed);
  for (long i = 0; i < operations; ++i) {
    try {
      model.step();
      if (i % 200 == 0 || i == operations - 1) model.check_all();
    } catch (const Failure& failed) {
      throw Failure("operation " + std::to_string(i) + ": " + failed.what());
    }
  }
}

}  // namespace posix
