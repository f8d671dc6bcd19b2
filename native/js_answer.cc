#include "js_answer.h"

#include <utility>

namespace obfs {

std::shared_ptr<JsAnswer> JsAnswer::create(Napi::Env env, Napi::Function callback, const char* name) {
  auto answer = std::make_shared<JsAnswer>();
  answer->function_ = Napi::ThreadSafeFunction::New(env, callback, name, 0, 1);
  answer->for_hook_ = answer;
  napi_add_env_cleanup_hook(env, environment_ends, answer.get());
  return answer;
}

void JsAnswer::call(Tell tell, std::function<void()> unheard) {
  const std::lock_guard lock(mutex_);
  if (is_over_) return unheard();
  unheard_ = std::move(unheard);
  // Never waits, though it holds the mutex: the queue has no limit.
  function_.BlockingCall([answer = shared_from_this(), tell = std::move(tell)](Napi::Env env, Napi::Function callback) {
    napi_remove_env_cleanup_hook(env, environment_ends, answer.get());
    answer->for_hook_.reset();
    try {
      tell(env, callback);
    } catch (const Napi::Error&) {
      answer->unheard_();  // the environment is ending: it takes no values any more
    }
  });
  function_.Release();
}

void JsAnswer::environment_ends(void* answer) {
  const std::shared_ptr<JsAnswer> self = std::move(static_cast<JsAnswer*>(answer)->for_hook_);
  const std::lock_guard lock(self->mutex_);
  self->is_over_ = true;
  if (self->unheard_) self->unheard_();
}

}  // namespace obfs
