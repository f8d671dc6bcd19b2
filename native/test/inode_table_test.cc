#include "inode_table.h"

#include <doctest/doctest.h>

#include <set>
#include <thread>

#include "os_calls.h"
#include "scratch.h"

using namespace obfs;
using obfs::testing::Scratch;

namespace {

struct Fixture {
  Scratch scratch;
  std::shared_ptr<TreeDirectory> directory;
  TreeRef tree;
  InodeTable table{{16, 4, 1000}};

  Fixture() {
    scratch.make_directory("tree");
    for (int i = 0; i < 8; ++i) scratch.make_file("tree/f" + std::to_string(i), "x");
    directory = scratch.directory("tree");
    tree = directory->view(Door::kSharedRoot, {});
  }
  FoundFile find(const std::string& name) {
    auto fd = os::open_at(directory->root().get(), name.c_str(), os::kNameOnly);
    REQUIRE(fd.ok());
    return *directory->backing().identify(*std::move(fd));
  }
  NodeRef acquire(const std::string& name) { return acquire(tree, name); }
  NodeRef acquire(const TreeRef& in, const std::string& name) {
    const auto node = table.acquire(in, find(name), NodeName{nullptr, name});
    REQUIRE(node.ok());
    return *node;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a file keeps its id while the kernel knows it, and gets a new one afterwards") {
  const NodeId first = acquire("f0")->id;
  CHECK(acquire("f0")->id == first);
  table.forget(first, 1);
  CHECK(table.find(first) != nullptr);
  table.forget(first, 1);
  CHECK(table.find(first) == nullptr);
  CHECK(acquire("f0")->id > first);
}

TEST_CASE_FIXTURE(Fixture, "one file in two views has two ids") {
  const TreeRef other = directory->view(Door::kTreeRoot, {});
  CHECK(acquire("f0")->id != acquire(other, "f0")->id);
}

TEST_CASE_FIXTURE(Fixture, "no more descriptors are open than the cache may hold, but for pinned ones") {
  const auto open_count = [] {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      (void)entry;
      ++count;
    }
    return count;
  };
  const size_t before = open_count();
  std::vector<NodeRef> nodes;
  for (int i = 0; i < 8; ++i) {
    nodes.push_back(acquire("f" + std::to_string(i)));
    REQUIRE(table.descriptor(*nodes.back()).ok());
  }
  CHECK(open_count() == before + 4);
  for (const NodeRef& node : nodes) {
    const auto fd = table.descriptor(*node);
    table.keep_nameless(*node, *fd);
  }
  CHECK(open_count() == before + 8);
  for (const NodeRef& node : nodes) table.forget(node->id, 1);
  CHECK(open_count() == before);
}

TEST_CASE_FIXTURE(Fixture, "a forgotten node that a request still holds is not cached again") {
  const NodeRef node = acquire("f0");
  table.forget(node->id, 1);
  CHECK(table.descriptor(*node).ok());
}

TEST_CASE_FIXTURE(Fixture, "threads that look up and forget the same files never meet a wrong node") {
  std::atomic<int> wrong = 0;
  const auto work = [&](unsigned seed) {
    for (int i = 0; i < 5000; ++i) {
      FoundFile found = find("f" + std::to_string(rand_r(&seed) % 8));
      const FileKey key = found.key;
      const auto node = table.acquire(tree, std::move(found), NodeName{nullptr, "f"});
      if (!node.ok() || !((*node)->key == key) || !table.descriptor(**node).ok()) ++wrong;
      if (node.ok()) table.forget((*node)->id, 1);
    }
  };
  std::thread a(work, 1), b(work, 2), c(work, 3);
  a.join();
  b.join();
  c.join();
  CHECK(wrong == 0);
  CHECK(table.size() == 0);
}

TEST_CASE("where files are found by names, a node follows its name, and its parents stay known for it") {
  Scratch scratch;
  scratch.make_directory("tree/a/b");
  scratch.make_file("tree/a/b/f", "text");
  const auto directory = scratch.directory("tree", BackingKind::kPaths);
  const TreeRef tree = directory->view(Door::kSharedRoot, {});
  InodeTable table({16, 4, 0});
  const auto known = [&](const NodeRef& parent, const std::string& path, const std::string& name) {
    auto fd = os::open_beneath(directory->root().get(), path.c_str(), os::kNameOnly);
    REQUIRE(fd.ok());
    return *table.acquire(tree, *directory->backing().identify(*std::move(fd)), NodeName{parent, name});
  };
  const NodeRef a = known(nullptr, "a", "a");
  const NodeRef b = known(a, "a/b", "b");
  const NodeRef file = known(b, "a/b/f", "f");
  CHECK(table.open(*file, O_RDONLY).ok());

  SUBCASE("a renamed ancestor") {
    REQUIRE(rename(scratch.path("tree/a").c_str(), scratch.path("tree/c").c_str()) == 0);
    table.add_name(*a, NodeName{nullptr, "c"});
    table.remove_name(*a, NodeName{nullptr, "a"});
    CHECK(table.open(*file, O_RDONLY).ok());
  }
  SUBCASE("another file under its name is not taken for it") {
    REQUIRE(unlink(scratch.path("tree/a/b/f").c_str()) == 0);
    scratch.make_file("tree/a/b/f", "other");
    CHECK(table.open(*file, O_RDONLY).error() == ESTALE);
  }
  SUBCASE("a link that took the place of an ancestor is not followed") {
    REQUIRE(rename(scratch.path("tree/a").c_str(), scratch.path("tree/real").c_str()) == 0);
    REQUIRE(symlink("real", scratch.path("tree/a").c_str()) == 0);
    CHECK_FALSE(table.open(*file, O_RDONLY).ok());
  }
  table.forget(a->id, 1);
  table.forget(b->id, 1);
  CHECK(table.size() == 3);
  table.forget(file->id, 1);
  CHECK(table.size() == 0);
}

TEST_CASE("the backing with a descriptor for each node says so when there are no more") {
  Scratch scratch;
  scratch.make_directory("tree");
  for (const char* name : {"tree/a", "tree/b", "tree/c"}) scratch.make_file(name, "");
  const auto directory = scratch.directory("tree", BackingKind::kDescriptors);
  const TreeRef tree = directory->view(Door::kSharedRoot, {});
  InodeTable table({16, 4, 2});
  const auto known = [&](const char* name) {
    auto fd = os::open_at(directory->root().get(), name, os::kNameOnly);
    return table.acquire(tree, *directory->backing().identify(*std::move(fd)), NodeName{nullptr, name});
  };
  const auto a = known("a");
  REQUIRE(a.ok());
  REQUIRE(known("b").ok());
  CHECK(known("c").error() == EMFILE);
  CHECK(known("a").ok());
  table.forget((*a)->id, 2);
  CHECK(known("c").ok());
}
