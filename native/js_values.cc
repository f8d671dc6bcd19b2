#include "js_values.h"

#include <cerrno>
#include <cstring>

namespace obfs {

namespace {

std::string errno_name(int error) {
#ifdef __GLIBC__
  if (const char* const name = strerrorname_np(error)) return name;
#else
  switch (error) {
    case EACCES:
      return "EACCES";
    case EBUSY:
      return "EBUSY";
    case EINVAL:
      return "EINVAL";
    case ENOENT:
      return "ENOENT";
    case ENOTDIR:
      return "ENOTDIR";
    case EPERM:
      return "EPERM";
    default:
      break;
  }
#endif
  return std::string("E").append(std::to_string(error));
}

[[noreturn]] void wrong_type(const Napi::Object& options, const char* name, const char* expected) {
  throw Napi::TypeError::New(options.Env(), std::string("option ") + name + " must be " + expected);
}

}  // namespace

Napi::Error system_error(Napi::Env env, int error, const std::string& syscall, const std::string& path) {
  const std::string code = errno_name(error);
  const std::string message = code + ": " + strerror(error) + ", " + syscall + (path.empty() ? "" : " '" + path + "'");
  Napi::Error made = Napi::Error::New(env, message);
  made.Set("code", Napi::String::New(env, code));
  made.Set("errno", Napi::Number::New(env, -error));
  made.Set("syscall", Napi::String::New(env, syscall));
  if (!path.empty()) made.Set("path", Napi::String::New(env, path));
  return made;
}

std::string string_property(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsString()) wrong_type(options, name, "a string");
  return value.As<Napi::String>();
}

bool boolean_property(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsBoolean()) wrong_type(options, name, "a boolean");
  return value.As<Napi::Boolean>();
}

std::vector<std::string> strings_property(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsArray()) wrong_type(options, name, "an array of strings");
  const auto array = value.As<Napi::Array>();
  std::vector<std::string> strings;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array[i];
    if (!item.IsString()) wrong_type(options, name, "an array of strings");
    strings.push_back(item.As<Napi::String>());
  }
  return strings;
}

}  // namespace obfs
