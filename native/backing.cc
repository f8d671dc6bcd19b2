#include "backing.h"

#include "os_calls.h"

namespace obfs {

Result<FoundFile> Backing::look_up(int directory_fd, const char* name) {
  auto fd = os::open_at(directory_fd, name, os::kNameOnly);
  if (!fd.ok()) return fd.failure();
  return identify(*std::move(fd));
}

Result<std::unique_ptr<Backing>> make_backing(BackingKind kind, int root) {
  switch (kind) {
    case BackingKind::kDescriptors:
      return make_descriptors_backing();
    case BackingKind::kPaths:
      return make_paths_backing(root);
#ifdef __APPLE__
    case BackingKind::kHandles:
      return Errno{EOPNOTSUPP};
    case BackingKind::kAuto:
      return make_paths_backing(root);
#else
    case BackingKind::kHandles:
      return make_handles_backing(root);
    case BackingKind::kAuto: {
      auto handles = make_handles_backing(root);
      if (handles.ok() || handles.error() != EOPNOTSUPP) return handles;
      return make_paths_backing(root);
    }
#endif
  }
  return Errno{EINVAL};
}

}  // namespace obfs
