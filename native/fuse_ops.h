#pragma once

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>

namespace obfs {

/** The table of low-level operations; a session's user data is its RedirectFs. */
const fuse_lowlevel_ops& fuse_operations();

}  // namespace obfs
