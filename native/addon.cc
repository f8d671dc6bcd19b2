// The Node side: JavaScript starts and ends mounts here, and no file-system request ever comes this way.

#include <dlfcn.h>
#include <fcntl.h>
#include <napi.h>
#include <sys/file.h>

#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "caller_trees.h"
#include "capabilities.h"
#include "idmap.h"
#include "js_answer.h"
#include "js_values.h"
#include "session.h"
#include "tree_clone.h"
#include "tree_usage.h"
#include "tree_writers.h"
#include "unique_fd.h"

namespace obfs {

namespace {

/** A mount of this environment. */
struct Mount {
  std::string prefix;
  std::unique_ptr<Session> session;
};

/** What one environment (main thread or worker) has under way: mounts and clones left when it ends are ended with it. */
struct Environment {
  std::unordered_set<Mount*> mounts;
  std::unordered_set<std::shared_ptr<CloneControl>> clones;

  ~Environment() {
    for (const auto& clone : clones) clone->is_cancelled = true;
    for (Mount* const mount : mounts) {
      (void)unmount_prefix(mount->prefix, UnmountMode::kAbort);
      delete mount;
    }
  }
};

BackingKind backing_property(const Napi::Object& given) {
  const std::string word = string_property(given, "backing");
  if (word == "auto") return BackingKind::kAuto;
  if (word == "handles") return BackingKind::kHandles;
  if (word == "descriptors") return BackingKind::kDescriptors;
  if (word == "paths") return BackingKind::kPaths;
  throw Napi::TypeError::New(given.Env(), "option backing must be auto, handles, descriptors or paths");
}

Session::Options session_options(const Napi::Object& given) {
  Session::Options options;
  options.prefix = string_property(given, "prefix");
  options.covered = string_property(given, "covered");
  options.source = string_property(given, "source");
  options.fs.trees.scoreboard = string_property(given, "scoreboard");
  options.fs.trees.rules = {string_property(given, "subdirectory"), options.prefix};
  options.fs.trees.map_owner = boolean_property(given, "mapOwner");
  options.fs.trees.backing = backing_property(given);
  options.fs.doors_name = string_property(given, "doorsName");
  options.fs.cache_names = boolean_property(given, "cacheNames");
  options.mount_options = strings_property(given, "mountOptions");
  return options;
}

/** Runs in the JavaScript thread once the loop has ended. */
void finish_mount(Napi::Function callback, Environment* environment, Mount* mount) {
  environment->mounts.erase(mount);
  delete mount;
  callback.Call({});
}

/** startMount(options, onEnded): mounts and serves; throws a system error when it cannot. */
void start_mount(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 2 || !info[0].IsObject() || !info[1].IsFunction()) {
    throw Napi::TypeError::New(env, "startMount takes options and a function");
  }
  const Session::Options options = session_options(info[0].As<Napi::Object>());
  MountFailure failure;
  auto session = Session::start(options, failure);
  if (session == nullptr) throw system_error(env, failure.error, failure.syscall, failure.path);
  auto* const environment = env.GetInstanceData<Environment>();
  auto* const mount = new Mount{options.prefix, std::move(session)};
  environment->mounts.insert(mount);
  const auto ended = JsAnswer::create(env, info[1].As<Napi::Function>(), "obuilder-fs mount");
  mount->session->serve([ended, environment, mount] {
    ended->call(
        [environment, mount](Napi::Env, Napi::Function callback) { finish_mount(callback, environment, mount); });
  });
}

/** statistics(prefix): what was counted for each tree of a mount that this process serves. */
Napi::Value statistics(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "statistics takes a prefix");
  const std::string prefix = info[0].As<Napi::String>();
  auto list = Napi::Array::New(env);
  for (Mount* const mount : env.GetInstanceData<Environment>()->mounts) {
    if (mount->prefix != prefix) continue;
    for (const Session::Counted& counted : mount->session->statistics()) {
      auto item = Napi::Object::New(env);
      item.Set("entry", counted.entry);
      item.Set("generation", Napi::Number::New(env, static_cast<double>(counted.generations)));
      item.Set("operations", Napi::Number::New(env, static_cast<double>(counted.operations)));
      item.Set("errors", Napi::Number::New(env, static_cast<double>(counted.errors)));
      item.Set("openFiles", Napi::Number::New(env, static_cast<double>(counted.open_files)));
      item.Set("cachedNodes", Napi::Number::New(env, static_cast<double>(counted.known_nodes)));
      list[list.Length()] = item;
    }
  }
  return list;
}

/** unmount(prefix, 'idle' | 'detach' | 'abort') */
void unmount(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 2 || !info[0].IsString() || !info[1].IsString()) {
    throw Napi::TypeError::New(env, "unmount takes a prefix and a mode");
  }
  const std::string prefix = info[0].As<Napi::String>();
  const std::string word = info[1].As<Napi::String>();
  UnmountMode mode;
  if (word == "idle") {
    mode = UnmountMode::kIfIdle;
  } else if (word == "detach") {
    mode = UnmountMode::kDetach;
  } else if (word == "abort") {
    mode = UnmountMode::kAbort;
  } else {
    throw Napi::TypeError::New(env, "unmount mode must be idle, detach or abort");
  }
  const Status done = unmount_prefix(prefix, mode);
  if (!done.ok()) throw system_error(env, done.error(), "umount", prefix);
}

/** readScoreboard(scoreboard, subdirectory, prefix): [{name, target, problem}] as the file system judges each entry. */
Napi::Value read_scoreboard_entries(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[0].IsString() || !info[1].IsString() || !info[2].IsString()) {
    throw Napi::TypeError::New(env, "readScoreboard takes a scoreboard, a subdirectory and a prefix");
  }
  const std::string scoreboard = info[0].As<Napi::String>();
  const auto entries = read_scoreboard(scoreboard, {info[1].As<Napi::String>(), info[2].As<Napi::String>()});
  if (!entries.ok()) throw system_error(env, entries.error(), "opendir", scoreboard);
  auto list = Napi::Array::New(env, entries->size());
  for (size_t i = 0; i < entries->size(); ++i) {
    const ScoreboardEntry& entry = (*entries)[i];
    auto item = Napi::Object::New(env);
    item.Set("name", entry.name);
    item.Set("target", entry.target);
    item.Set("problem", entry.problem);
    list[static_cast<uint32_t>(i)] = item;
  }
  return list;
}

/** keepCapabilities([number…]): gives up every other one, for this thread and those it makes from now on. */
void keep_capabilities_of(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsArray())
    throw Napi::TypeError::New(env, "keepCapabilities takes an array of numbers");
  const auto numbers = info[0].As<Napi::Array>();
  uint64_t mask = 0;
  for (uint32_t i = 0; i < numbers.Length(); ++i) {
    const Napi::Value number = numbers[i];
    mask |= uint64_t{1} << number.As<Napi::Number>().Uint32Value();
  }
  const Status kept = keep_capabilities(mask);
  if (!kept.ok() && kept.error() != EPERM) throw system_error(env, kept.error(), "capset", "");
}

int flock_operation(const Napi::CallbackInfo& info) {
  if (info.Length() < 2 || !info[0].IsNumber() || !info[1].IsBoolean()) {
    throw Napi::TypeError::New(info.Env(), "flock takes a descriptor and whether the lock is exclusive");
  }
  return info[1].As<Napi::Boolean>() ? LOCK_EX : LOCK_SH;
}

/** flockTry(fd, exclusive): whether the lock was free. */
Napi::Value flock_try(const Napi::CallbackInfo& info) {
  const int operation = flock_operation(info);
  const int fd = info[0].As<Napi::Number>();
  if (flock(fd, operation | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
  throw system_error(info.Env(), errno, "flock", "");
}

Napi::Function no_function(Napi::Env env) {
  return Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
}

int flock_patiently(int fd, int operation) {
  while (flock(fd, operation) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// flockWait(fd, exclusive, keepsProcess): resolves once the lock is held. On a thread of its own: Node's pool has four, and a lock
// may be waited for as long as a build takes. Without keepsProcess the wait alone does not keep the process from ending.
Napi::Value flock_wait(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int operation = flock_operation(info);
  // The lock belongs to the open file, so to both descriptors of it. This one outlives a worker that ends meanwhile.
  const auto file = std::make_shared<UniqueFd>(fcntl(info[0].As<Napi::Number>(), F_DUPFD_CLOEXEC, 0));
  if (!file->is_open()) throw system_error(env, errno, "fcntl", "");
  const auto promise = std::make_shared<Napi::Promise::Deferred>(env);
  const auto settle = JsAnswer::create(env, no_function(env), "flock");
  if (info.Length() < 3 || !info[2].ToBoolean()) settle->keep_no_process(env);
  std::thread([file, operation, promise, settle] {
    const int error = flock_patiently(file->get(), operation);
    const auto tell = [file, promise, error](Napi::Env js, Napi::Function) {
      if (error == 0) {
        promise->Resolve(js.Undefined());
      } else {
        promise->Reject(system_error(js, error, "flock", "").Value());
      }
      *file = UniqueFd();  // before anybody hears: from then on the lock goes with the caller's own
    };
    settle->call(tell, [file] { flock(file->get(), LOCK_UN); });
  }).detach();
  return promise->Promise();
}

std::vector<MappedTree> mapped_trees(const Napi::Array& given) {
  std::vector<MappedTree> trees;
  for (uint32_t i = 0; i < given.Length(); ++i) {
    const Napi::Value item = given[i];
    const auto tree = item.As<Napi::Object>();
    const auto id = [&tree](const char* name) { return tree.Get(name).As<Napi::Number>().Uint32Value(); };
    const OwnerMapping owners = {id("storedUid"), id("storedGid"), id("shownUid"), id("shownGid")};
    trees.push_back({string_property(tree, "path"), owners});
  }
  return trees;
}

class MappedNamespace : public Napi::AsyncWorker {
 public:
  MappedNamespace(Napi::Env env, std::vector<MappedTree> trees)
      : Napi::AsyncWorker(env), promise(env), trees_(std::move(trees)) {}

  const Napi::Promise::Deferred promise;

 protected:
  void Execute() override { made_ = open_mapped_namespace(trees_); }
  void OnOK() override {
    if (made_.ok()) {
      promise.Resolve(Napi::Number::New(Env(), made_->release()));
    } else {
      promise.Reject(system_error(Env(), made_.error(), "mount_setattr", "").Value());
    }
  }

 private:
  const std::vector<MappedTree> trees_;
  Result<UniqueFd> made_ = Errno{EIO};
};

/** openMappedNamespace([{path, storedUid, storedGid, shownUid, shownGid}…]): a descriptor of the namespace. */
Napi::Value open_mapped_namespace_for(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsArray()) throw Napi::TypeError::New(env, "openMappedNamespace takes an array");
  auto* const work = new MappedNamespace(env, mapped_trees(info[0].As<Napi::Array>()));
  const Napi::Value promise = work->promise.Promise();
  work->Queue();
  return promise;
}

/** What JavaScript holds of a clone: {finished, cancel()}. */
Napi::Object clone_handle(const Napi::Env env, const std::shared_ptr<CloneControl>& control, Napi::Promise finished) {
  auto handle = Napi::Object::New(env);
  handle.Set("finished", finished);
  handle.Set("cancel",
             Napi::Function::New(env, [control](const Napi::CallbackInfo&) { control->is_cancelled = true; }));
  return handle;
}

/** cloneTree(source, target, isCopy): works on threads of its own; a system error names the file. */
Napi::Value start_clone(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[0].IsString() || !info[1].IsString() || !info[2].IsBoolean()) {
    throw Napi::TypeError::New(env, "cloneTree takes a source, a target and whether to copy");
  }
  const std::string source = info[0].As<Napi::String>();
  const std::string target = info[1].As<Napi::String>();
  const auto control = std::make_shared<CloneControl>(info[2].As<Napi::Boolean>().Value());
  const auto promise = std::make_shared<Napi::Promise::Deferred>(env);
  auto* const environment = env.GetInstanceData<Environment>();
  const auto settle = JsAnswer::create(env, no_function(env), "obuilder-fs clone");
  environment->clones.insert(control);
  std::thread([source, target, control, promise, environment, settle] {
    const auto failure = clone_tree(source, target, *control);
    settle->call([=](Napi::Env js, Napi::Function) {
      environment->clones.erase(control);
      if (failure) {
        promise->Reject(system_error(js, failure->error, failure->syscall, failure->path).Value());
      } else {
        promise->Resolve(js.Undefined());
      }
    });
  }).detach();
  return clone_handle(env, control, promise->Promise());
}

class WriterSearch : public Napi::AsyncWorker {
 public:
  WriterSearch(Napi::Env env, std::string root, size_t count_max)
      : Napi::AsyncWorker(env), promise(env), root_(std::move(root)), count_max_(count_max) {}

  const Napi::Promise::Deferred promise;

 protected:
  void Execute() override { found_ = files_open_for_writing(root_, count_max_); }
  void OnOK() override {
    if (found_.ok()) {
      auto paths = Napi::Array::New(Env());
      for (uint32_t i = 0; i < found_->size(); ++i) paths[i] = Napi::String::New(Env(), (*found_)[i]);
      promise.Resolve(paths);
    } else {
      promise.Reject(system_error(Env(), found_.error(), "fcntl", root_).Value());
    }
  }

 private:
  const std::string root_;
  const size_t count_max_;
  Result<std::vector<std::string>> found_ = Errno{EIO};
};

class UsageMeasurement : public Napi::AsyncWorker {
 public:
  UsageMeasurement(Napi::Env env, std::string root) : Napi::AsyncWorker(env), promise(env), root_(std::move(root)) {}

  const Napi::Promise::Deferred promise;

 protected:
  void Execute() override { usage_ = measure_tree(root_); }
  void OnOK() override {
    if (usage_.ok()) {
      auto counted = Napi::Object::New(Env());
      counted.Set("files", static_cast<double>(usage_->files));
      counted.Set("bytes", static_cast<double>(usage_->bytes));
      counted.Set("sharedBytes", static_cast<double>(usage_->shared_bytes));
      promise.Resolve(counted);
    } else {
      promise.Reject(system_error(Env(), usage_.error(), "open", root_).Value());
    }
  }

 private:
  const std::string root_;
  Result<TreeUsage> usage_ = Errno{EIO};
};

/** measureTree(root) */
Napi::Value measure_tree_at(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "measureTree takes a directory");
  auto* const work = new UsageMeasurement(env, info[0].As<Napi::String>());
  const Napi::Value promise = work->promise.Promise();
  work->Queue();
  return promise;
}

/** filesOpenForWriting(root, countMax): paths below root. */
Napi::Value files_open_for_writing_below(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 2 || !info[0].IsString() || !info[1].IsNumber()) {
    throw Napi::TypeError::New(env, "filesOpenForWriting takes a directory and a number");
  }
  auto* const work = new WriterSearch(env, info[0].As<Napi::String>(), info[1].As<Napi::Number>().Uint32Value());
  const Napi::Value promise = work->promise.Promise();
  work->Queue();
  return promise;
}

/** Node unloads an addon with the last environment that has loaded it. Threads of ours may go on after that. */
void stay_loaded() {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(stay_loaded), &self) == 0) return;
  (void)dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  env.SetInstanceData(new Environment);
  exports.Set("startMount", Napi::Function::New(env, start_mount));
  exports.Set("statistics", Napi::Function::New(env, statistics));
  exports.Set("unmount", Napi::Function::New(env, unmount));
  exports.Set("readScoreboard", Napi::Function::New(env, read_scoreboard_entries));
  exports.Set("keepCapabilities", Napi::Function::New(env, keep_capabilities_of));
  exports.Set("flockTry", Napi::Function::New(env, flock_try));
  exports.Set("openMappedNamespace", Napi::Function::New(env, open_mapped_namespace_for));
  exports.Set("flockWait", Napi::Function::New(env, flock_wait));
  exports.Set("measureTree", Napi::Function::New(env, measure_tree_at));
  exports.Set("filesOpenForWriting", Napi::Function::New(env, files_open_for_writing_below));
  exports.Set("cloneTree", Napi::Function::New(env, start_clone));
  return exports;
}

}  // namespace

NODE_API_MODULE(obuilder_fs, initialise)

}  // namespace obfs
