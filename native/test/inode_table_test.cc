#include "inode_table.h"

#include <doctest/doctest.h>

#include <set>
#include <thread>

#include "scratch.h"

using namespace obfs;
using obfs::testing::Scratch;

namespace {

struct Fixture {
  Scratch scratch;
  std::shared_ptr<TreeDirectory> directory;
  TreeRef tree;
  InodeTable table{16, 4};

  Fixture() {
    scratch.make_directory("tree");
    for (int i = 0; i < 8; ++i) scratch.make_file("tree/f" + std::to_string(i), "x");
    directory = scratch.directory("tree");
    tree = directory->view(Door::kSharedRoot, {});
  }
  FileKey key_of(const std::string& name) {
    return *directory->backing().key_of(directory->root().get(), name.c_str());
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a file keeps its id while the kernel knows it, and gets a new one afterwards") {
  const NodeId first = table.acquire(tree, key_of("f0"))->id;
  CHECK(table.acquire(tree, key_of("f0"))->id == first);
  table.forget(first, 1);
  CHECK(table.find(first) != nullptr);
  table.forget(first, 1);
  CHECK(table.find(first) == nullptr);
  CHECK(table.acquire(tree, key_of("f0"))->id > first);
}

TEST_CASE_FIXTURE(Fixture, "one file in two views has two ids") {
  const TreeRef other = directory->view(Door::kTreeRoot, {});
  CHECK(table.acquire(tree, key_of("f0"))->id != table.acquire(other, key_of("f0"))->id);
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
    nodes.push_back(table.acquire(tree, key_of("f" + std::to_string(i))));
    REQUIRE(table.descriptors().open(*nodes.back()).ok());
  }
  CHECK(open_count() == before + 4);
  for (const NodeRef& node : nodes) {
    auto fd = table.descriptors().open(*node);
    table.descriptors().pin(*node, *fd);
  }
  CHECK(open_count() == before + 8);
  for (const NodeRef& node : nodes) table.forget(node->id, 1);
  CHECK(open_count() == before);
}

TEST_CASE_FIXTURE(Fixture, "a forgotten node that a request still holds is not cached again") {
  const NodeRef node = table.acquire(tree, key_of("f0"));
  table.forget(node->id, 1);
  CHECK(table.descriptors().open(*node).ok());
}

TEST_CASE_FIXTURE(Fixture, "threads that look up and forget the same files never meet a wrong node") {
  std::atomic<int> wrong = 0;
  std::vector<FileKey> keys;
  for (int i = 0; i < 8; ++i) keys.push_back(key_of("f" + std::to_string(i)));
  const auto work = [&](unsigned seed) {
    for (int i = 0; i < 5000; ++i) {
      const FileKey& key = keys[rand_r(&seed) % keys.size()];
      const NodeRef node = table.acquire(tree, key);
      if (!(node->key == key) || !table.descriptors().open(*node).ok()) ++wrong;
      table.forget(node->id, 1);
    }
  };
  std::thread a(work, 1), b(work, 2), c(work, 3);
  a.join();
  b.join();
  c.join();
  CHECK(wrong == 0);
  CHECK(table.size() == 0);
}
