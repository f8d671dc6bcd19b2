#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>

namespace obfs {

/**
 * How a thread of ours calls JavaScript, once, if the environment (main thread or worker) that waits for it still lives: Node frees its
 * side of a thread-safe function with the environment, whoever is about to call it.
 */
class JsAnswer : public std::enable_shared_from_this<JsAnswer> {
 public:
  using Tell = std::function<void(Napi::Env, Napi::Function)>;

  /** Until it has called, the environment goes on; see `keep_no_process`. */
  static std::shared_ptr<JsAnswer> create(Napi::Env env, Napi::Function callback, const char* name);

  /** An environment that has nothing else to do may end before. In its thread. */
  void keep_no_process(Napi::Env env) { function_.Unref(env); }

  /** Runs `tell` in the JavaScript thread, or `unheard` in any when there is none any more. From any thread, at most once. */
  void call(
      Tell tell, std::function<void()> unheard = [] {});

 private:
  static void environment_ends(void* answer);

  std::mutex mutex_;  // `function_` is freed only after `environment_ends`
  bool is_over_ = false;
  std::function<void()> unheard_;  // while `tell` is on its way
  Napi::ThreadSafeFunction function_;
  std::shared_ptr<JsAnswer> for_hook_;  // this, while the environment may call `environment_ends`
};

}  // namespace obfs
