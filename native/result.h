#pragma once

#include <cerrno>
#include <optional>
#include <utility>

namespace obfs {

/** A failed system call's errno, positive. */
struct Errno {
  int value;
};

/** The errno of the system call that just failed. */
inline Errno last_errno() { return Errno{errno}; }

/** A value, or the errno that is to reach the caller. */
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Errno error) : error_(error.value) {}

  bool ok() const { return value_.has_value(); }
  int error() const { return error_; }
  Errno failure() const { return Errno{error_}; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T operator*() && { return std::move(*value_); }  // by value: a range-for over a temporary must be safe
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  int error_ = 0;
};

/** Success, or an errno. */
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Errno error) : error_(error.value) {}

  bool ok() const { return error_ == 0; }
  int error() const { return error_; }
  Errno failure() const { return Errno{error_}; }

 private:
  int error_ = 0;
};

/** Wraps a system call that answers -1 and errno. */
inline Status status_of(int answer) { return answer == -1 ? Status(last_errno()) : Status(); }

}  // namespace obfs
