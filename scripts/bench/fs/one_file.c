/* The cheapest round trip that FUSE can make: a file system of one file, `top`, whose name the kernel may not remember.
 * Each stat of it is exactly one LOOKUP, answered from constants. Serves in the foreground: one_file MOUNT_POINT -f -o allow_other */

#define FUSE_USE_VERSION 34

#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>
#include <sys/stat.h>

static const double long_time = 86400;

static struct stat attributes_of(fuse_ino_t id) {
  struct stat attributes = {0};
  attributes.st_ino = id;
  attributes.st_mode = id == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
  attributes.st_nlink = 1;
  return attributes;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
  struct fuse_entry_param entry = {0};
  if (parent != FUSE_ROOT_ID || strcmp(name, "top") != 0) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  entry.ino = 2;
  entry.attr = attributes_of(2);
  entry.attr_timeout = long_time;
  entry.entry_timeout = 0;
  fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *info) {
  const struct stat attributes = attributes_of(id);
  (void)info;
  fuse_reply_attr(req, &attributes, long_time);
}

int main(int argc, char **argv) {
  static const struct fuse_lowlevel_ops operations = {.lookup = on_lookup, .getattr = on_getattr};
  struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
  struct fuse_cmdline_opts options;
  struct fuse_loop_config loop = {.clone_fd = 0, .max_idle_threads = 10};
  struct fuse_session *session;
  int status = 1;
  if (fuse_parse_cmdline(&args, &options) != 0 || options.mountpoint == NULL) return 1;
  session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
  if (session == NULL) return 1;
  if (fuse_session_mount(session, options.mountpoint) == 0) {
    status = fuse_session_loop_mt(session, &loop);
    fuse_session_unmount(session);
  }
  fuse_session_destroy(session);
  return status != 0;
}
