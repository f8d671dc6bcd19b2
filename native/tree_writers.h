#pragma once

#include <string>
#include <vector>

#include "result.h"

namespace obfs {

/**
 * Files below the directory `root` that somebody can write to now: by a descriptor in any process, one under way in a socket, or a
 * shared mapping. Paths are relative to `root`, at most `count_max` of them. The kernel counts such openings per file and tells by refusing
 * a read lease, so none can hide by moving while we look, as it could from a list of descriptors.
 *
 * Works in several threads, and follows no link. EOPNOTSUPP where the system or the file system has no leases.
 */
Result<std::vector<std::string>> files_open_for_writing(const std::string& root, size_t count_max);

}  // namespace obfs
