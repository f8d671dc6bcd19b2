#include "passthrough.h"

namespace obfs {

std::shared_ptr<const Passthrough::File> Passthrough::join(NodeId id, int fd, bool prefers_pages) {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const File>& known = files_[id];
  auto file = known.lock();
  if (file == nullptr) {
    file = std::make_shared<const File>(*this, id, prefers_pages ? 0 : kernel_io_.open_backing(fd));
    known = file;
  }
  return file;
}

Passthrough::File::~File() {
  if (is_direct()) of_.kernel_io_.close_backing(backing_);
  of_.leave(id_);
}

// Somebody else may have opened the file again meanwhile.
void Passthrough::leave(NodeId id) {
  const std::lock_guard lock(mutex_);
  const auto known = files_.find(id);
  if (known != files_.end() && known->second.expired()) files_.erase(known);
}

}  // namespace obfs
