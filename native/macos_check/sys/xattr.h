#pragma once

// For the compile check alone: the macOS headers of the cross compiler lack this one. Declares what os_calls_macos.cc uses, as
// the system's own header does.

#include <sys/types.h>

extern "C" {
ssize_t fgetxattr(int fd, const char* name, void* value, size_t size, u_int32_t position, int options);
int fsetxattr(int fd, const char* name, const void* value, size_t size, u_int32_t position, int options);
ssize_t flistxattr(int fd, char* names, size_t size, int options);
int fremovexattr(int fd, const char* name, int options);
}
