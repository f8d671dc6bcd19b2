#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capabilities.h"

namespace obfs {

namespace {

/** So that nothing that is executed gets them back. */
Status narrow_bounding_set(uint64_t mask) {
  Status done;
  for (unsigned capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    if ((mask >> capability & 1) != 0) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) done = last_errno();
  }
  return done;
}

}  // namespace

// The bounding set first: changing it takes a capability that is then given up.
Status keep_capabilities(uint64_t mask) {
  const Status bounded = narrow_bounding_set(mask);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct halves[2];
  if (syscall(SYS_capget, &header, halves) != 0) return last_errno();
  for (unsigned i = 0; i < 2; ++i) {
    const auto kept = static_cast<uint32_t>(mask >> (32 * i));
    halves[i].effective &= kept;
    halves[i].permitted &= kept;
    halves[i].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, halves) != 0) return last_errno();
  return bounded;
}

}  // namespace obfs
