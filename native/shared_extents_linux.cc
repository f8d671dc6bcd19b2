#include "shared_extents.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "unique_fd.h"

namespace obfs {

namespace {

constexpr uint32_t kExtentsMax = 64;

}  // namespace

uint64_t shared_bytes_of(int directory, const char* name) {
  const UniqueFd file(openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOATIME));
  if (!file.is_open()) return 0;
  uint64_t shared = 0;
  for (uint64_t offset = 0;;) {
    // The kernel puts its answer behind the request.
    alignas(struct fiemap) char room[sizeof(struct fiemap) + kExtentsMax * sizeof(struct fiemap_extent)] = {};
    auto* const map = reinterpret_cast<struct fiemap*>(room);
    map->fm_start = offset;
    map->fm_length = FIEMAP_MAX_OFFSET - offset;
    map->fm_extent_count = kExtentsMax;
    if (ioctl(file.get(), FS_IOC_FIEMAP, map) != 0) return shared;
    const uint32_t count = std::min(map->fm_mapped_extents, kExtentsMax);
    const struct fiemap_extent* const extents = map->fm_extents;
    for (uint32_t i = 0; i < count; ++i) {
      if ((extents[i].fe_flags & FIEMAP_EXTENT_SHARED) != 0) shared += extents[i].fe_length;
      offset = extents[i].fe_logical + extents[i].fe_length;
    }
    if (count == 0 || (extents[count - 1].fe_flags & FIEMAP_EXTENT_LAST) != 0) return shared;
  }
}

}  // namespace obfs
