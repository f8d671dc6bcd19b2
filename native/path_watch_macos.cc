#include <cerrno>

#include "path_watch.h"

namespace obfs {

// FSEvents tells of changes after they have happened, which is too late.
PathWatch::PathWatch() = default;

PathWatch::Watched::~Watched() = default;

Result<std::shared_ptr<PathWatch::Watched>> PathWatch::watch(const std::string&, bool) { return Errno{EOPNOTSUPP}; }

uint64_t PathWatch::epoch() { return epoch_; }

}  // namespace obfs
