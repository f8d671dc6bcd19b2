#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "tree.h"
#include "unique_fd.h"

namespace obfs::testing {

/** A directory of a test's own, world-searchable, gone with its scope. */
class Scratch {
 public:
  Scratch() {
    char name[] = "/tmp/obuilder-fs-core.XXXXXX";
    if (mkdtemp(name) == nullptr) throw std::runtime_error("mkdtemp");
    root_ = name;
    chmod(name, 0755);
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path(const std::string& name) const { return root_ + "/" + name; }

  std::string make_directory(const std::string& name, uid_t owner = 0, mode_t mode = 0755) const {
    std::filesystem::create_directories(path(name));
    if (chown(path(name).c_str(), owner, owner) != 0) throw std::runtime_error("chown");
    chmod(path(name).c_str(), mode);
    return path(name);
  }

  std::string make_file(const std::string& name, const std::string& text, uid_t owner = 0) const {
    std::ofstream(path(name)) << text;
    if (chown(path(name).c_str(), owner, owner) != 0) throw std::runtime_error("chown");
    return path(name);
  }

  /** Points a scoreboard entry at a directory, by rename, as the control plane does. */
  void point(const std::string& entry, const std::string& target) const {
    const std::string fresh = path("scoreboard/.new");
    if (symlink(target.c_str(), fresh.c_str()) != 0) throw std::runtime_error("symlink");
    if (rename(fresh.c_str(), path("scoreboard/" + entry).c_str()) != 0) throw std::runtime_error("rename");
  }

  std::shared_ptr<TreeDirectory> directory(const std::string& name, BackingKind kind = BackingKind::kAuto) const {
    UniqueFd fd(open(path(name).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    auto opened = TreeDirectory::open(std::move(fd), kind);
    if (!opened.ok()) throw std::runtime_error("TreeDirectory::open");
    return *opened;
  }

 private:
  std::string root_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline bool is_root() { return geteuid() == 0; }

}  // namespace obfs::testing
