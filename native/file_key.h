#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>

namespace obfs {

/** What tells one file of a tree from every other, now and later: never an inode number alone, which file systems recycle. */
struct FileKey {
  static constexpr size_t kMaxBytes = 48;

  uint16_t mount = 0;  ///< index of the mount it lies on, within its tree's directory
  uint8_t type = 0;    ///< the file system's own handle type
  uint8_t size = 0;
  unsigned char bytes[kMaxBytes] = {};

  std::string_view view() const { return {reinterpret_cast<const char*>(bytes), size}; }
  bool operator==(const FileKey& other) const {
    return mount == other.mount && type == other.type && view() == other.view();
  }
  size_t hash() const { return std::hash<std::string_view>()(view()) ^ (size_t{mount} << 17) ^ type; }
};

}  // namespace obfs
