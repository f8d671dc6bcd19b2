#pragma once

#include <cstdint>

#include "result.h"

namespace obfs {

/**
 * Gives up every capability but those of the mask, for the calling thread and the threads it makes from now on. Linux; elsewhere
 * there are none to give up. EPERM where the thread may not change its bounding set: its own set is narrowed all the same.
 */
Status keep_capabilities(uint64_t mask);

}  // namespace obfs
