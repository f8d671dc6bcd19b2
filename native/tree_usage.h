#pragma once

#include <cstdint>
#include <string>

#include "result.h"

namespace obfs {

/** What a tree takes on disk. */
struct TreeUsage {
  uint64_t files = 0;
  /** What others share counts in full; a file with several names once. */
  uint64_t bytes = 0;
  /** The part of `bytes` that stays when the tree goes: files that have names elsewhere, and storage that other files share. */
  uint64_t shared_bytes = 0;
};

/**
 * Measures the tree at `root`, without following links and without other file systems mounted in it. What vanishes meanwhile does
 * not count. Where a file system does not tell which storage is shared, only hard links count as shared.
 */
Result<TreeUsage> measure_tree(const std::string& root);

}  // namespace obfs
