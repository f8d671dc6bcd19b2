#pragma once

#include <napi.h>

#include <string>
#include <vector>

namespace obfs {

/** A system error as Node's own look: Error {code, errno, syscall, path}. */
Napi::Error system_error(Napi::Env env, int error, const std::string& syscall, const std::string& path);

/** Reads a property of an options object; a wrong type throws a TypeError that names it. */
std::string string_property(const Napi::Object& options, const char* name);
bool boolean_property(const Napi::Object& options, const char* name);
std::vector<std::string> strings_property(const Napi::Object& options, const char* name);

}  // namespace obfs
