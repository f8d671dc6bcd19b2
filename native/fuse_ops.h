#pragma once

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>

#include "kernel_io.h"
#include "passthrough.h"
#include "redirect_fs.h"

namespace obfs {

/** What the operations of one session work on: the session's user data. */
struct FuseService {
  RedirectFs& fs;
  fuse_session* session = nullptr;
  KernelIo kernel_io = {};
  Passthrough passthrough{kernel_io};
};

/** The table of low-level operations; a session's user data is its FuseService. */
const fuse_lowlevel_ops& fuse_operations();

}  // namespace obfs
