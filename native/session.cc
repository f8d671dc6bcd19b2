#include "session.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "fuse_ops.h"
#include "os_calls.h"

namespace obfs {

namespace {

class FuseArguments {
 public:
  explicit FuseArguments(const std::vector<std::string>& mount_options) {
    fuse_opt_add_arg(&args_, "obuilder-fs");
    for (const std::string& option : mount_options) {
      fuse_opt_add_arg(&args_, "-o");
      fuse_opt_add_arg(&args_, option.c_str());
    }
  }
  ~FuseArguments() { fuse_opt_free_args(&args_); }
  FuseArguments(const FuseArguments&) = delete;
  FuseArguments& operator=(const FuseArguments&) = delete;
  fuse_args* get() { return &args_; }

 private:
  fuse_args args_ = FUSE_ARGS_INIT(0, nullptr);
};

/** Opens the covered directory: it must happen before the mount hides it. */
Result<std::shared_ptr<TreeDirectory>> open_covered(const Session::Options& options) {
  const std::string& path = options.covered.empty() ? options.prefix : options.covered;
  auto root = os::open_at(AT_FDCWD, path.c_str(), os::kNameOnly | O_DIRECTORY);
  if (!root.ok()) return root.failure();
  return TreeDirectory::open(*std::move(root), options.fs.trees.backing);
}

/** What is kept open for later, and what one tree may need a descriptor each for, leave room for the files that are open. */
void fit_to_limit(RedirectFs::Options& fs) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto available = static_cast<size_t>(std::min<rlim_t>(limit.rlim_cur, SIZE_MAX));
  fs.cached_descriptors = std::min(fs.cached_descriptors, available / 4);
  fs.pinned_descriptors = std::min(fs.pinned_descriptors, available / 2);
}

/** Whether set-id programs work on the mount: the last word counts. */
bool lets_set_ids(const std::vector<std::string>& mount_options) {
  bool lets = true;
  for (const std::string& option : mount_options) {
    if (option == "suid" || option == "nosuid") lets = option == "suid";
  }
  return lets;
}

// Signals are the Node thread's: a loop thread that took one would end with EINTR.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

std::unique_ptr<Session> Session::start(const Options& options, MountFailure& failure) {
  auto covered = open_covered(options);
  if (!covered.ok()) {
    failure = {"open", options.covered.empty() ? options.prefix : options.covered, covered.error()};
    return nullptr;
  }
  umask(0);  // modes come from the kernel, masked by the caller's umask already
  drop_own_groups();
  RedirectFs::Options fs = options.fs;
  fit_to_limit(fs);
  std::unique_ptr<Session> session(new Session(fs, *std::move(covered)));
  return session->mount(options, failure) ? std::move(session) : nullptr;
}

Session::Session(const RedirectFs::Options& options, std::shared_ptr<TreeDirectory> covered)
    : fs_(std::make_unique<RedirectFs>(options, std::move(covered))), service_(new FuseService{*fs_}) {}

bool Session::mount(const Options& options, MountFailure& failure) {
  FuseArguments arguments(options.mount_options);
  fuse_session* const session =
      fuse_session_new(arguments.get(), &fuse_operations(), sizeof(fuse_lowlevel_ops), service_.get());
  if (session == nullptr) {
    failure = {"fuse_session_new", options.prefix, EINVAL};
    return false;
  }
  errno = 0;
  if (fuse_session_mount(session, options.prefix.c_str()) != 0) {
    failure = {"mount", options.prefix, errno == 0 ? EIO : errno};
    fuse_session_destroy(session);
    return false;
  }
  service_->session = session;
  const bool wants_passthrough = options.fs.cache_names && !lets_set_ids(options.mount_options);
  const Status attached = service_->kernel_io.attach(session, wants_passthrough);
  if (!attached.ok()) failure = {"fuse_session_custom_io", options.prefix, attached.error()};
  return attached.ok();
}

void Session::serve(std::function<void()> ended) {
  const SignalsBlocked blocked;  // threads inherit the mask
  thread_ = std::thread([this, ended = std::move(ended)] { loop(ended); });
}

void Session::loop(const std::function<void()>& ended) {
  fuse_loop_config* const config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, 16);
  fuse_loop_cfg_set_idle_threads(config, 16);
  fuse_session_loop_mt(service_->session, config);
  fuse_loop_cfg_destroy(config);
  fuse_session_unmount(service_->session);
  service_->kernel_io.end();
  fuse_session_destroy(service_->session);
  service_->session = nullptr;
  {
    const std::lock_guard lock(fs_mutex_);
    fs_.reset();  // closes every descriptor of the trees
  }
  ended();
}

std::vector<Session::Counted> Session::statistics() {
  const std::lock_guard lock(fs_mutex_);
  std::vector<Counted> counted;
  if (fs_ == nullptr) return counted;
  for (const auto& [entry, directory] : fs_->trees().used()) {
    const TreeStatistics& count = directory->statistics;
    counted.push_back({entry, count.generations, count.operations, count.errors, count.open_files, count.known_nodes});
  }
  return counted;
}

Session::~Session() {
  if (thread_.joinable()) thread_.join();
  if (service_->session != nullptr) {  // never served
    fuse_session_unmount(service_->session);
    fuse_session_destroy(service_->session);
  }
}

}  // namespace obfs
