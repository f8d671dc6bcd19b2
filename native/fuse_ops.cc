// Unpacks each kernel request, asks RedirectFs, and replies exactly once. No exception crosses into libfuse.
//
// A reply may be the last reference to what it names: the kernel can send FORGET or RELEASE on another thread before the reply
// call returns. So handlers touch nothing of a node or handle after replying.

#include "fuse_ops.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include "os_calls.h"

namespace obfs {

namespace {

FuseService& service_of(fuse_req_t req) { return *static_cast<FuseService*>(fuse_req_userdata(req)); }

RedirectFs& fs_of(fuse_req_t req) { return service_of(req).fs; }

Caller caller_of(fuse_req_t req) {
  const fuse_ctx* const context = fuse_req_ctx(req);
  return Caller{context->uid, context->gid, context->pid};
}

bool is_for_writing(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

/** An open file, and how it is read and written. */
struct OpenFile {
  OpenFile(std::unique_ptr<FileHandle> opened, std::shared_ptr<const Passthrough::File> file, int flags)
      : handle(std::move(opened)),
        way(std::move(file)),
        writes_unseen(way->is_direct() && is_for_writing(flags)),
        renews_pages(!way->is_direct() && handle->node->has_outdated_pages) {
    if (!writes_unseen) return;
    handle->node->has_outdated_pages = true;
    handle->tree->begin_unseen_writes();
  }
  ~OpenFile() {
    if (writes_unseen) handle->tree->end_unseen_writes();
    // Only by now has the kernel dropped the pages for certain. While this lasts, nobody has begun to write without them.
    if (renews_pages) handle->node->has_outdated_pages = false;
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const std::unique_ptr<FileHandle> handle;
  const std::shared_ptr<const Passthrough::File> way;
  const bool writes_unseen;
  const bool renews_pages;  ///< the kernel is told to drop those that it has
};

OpenFile* open_file_of(const fuse_file_info* info) { return reinterpret_cast<OpenFile*>(info->fh); }

FileHandle* file_of(const fuse_file_info* info) {
  if (info == nullptr) return nullptr;
  FileHandle* const handle = open_file_of(info)->handle.get();
  RequestCount::is_for(*handle->tree);
  return handle;
}

DirectoryHandle& directory_of(const fuse_file_info* info) {
  auto* const handle = reinterpret_cast<DirectoryHandle*>(info->fh);
  if (handle->tree != nullptr) RequestCount::is_for(*handle->tree);
  return *handle;
}

void reply_error(fuse_req_t req, int error) {
  RequestCount::ends_with(error);
  fuse_reply_err(req, error);
}

/** Runs a handler; what it throws becomes an error reply (it throws only before it has replied). */
template <typename Handler>
void answer(fuse_req_t req, Handler handler) {
  const RequestCount count;
  try {
    handler();
  } catch (const std::bad_alloc&) {
    reply_error(req, ENOMEM);
  } catch (const std::exception& unexpected) {
    fprintf(stderr, "obuilder-fs: BUG: %s\n", unexpected.what());
    reply_error(req, EIO);
  }
}

void reply_status(fuse_req_t req, const Status& status) { reply_error(req, status.error()); }

fuse_entry_param entry_param(const Entry& entry) {
  fuse_entry_param param = {};
  param.ino = entry.id;
  param.attr = entry.attr;
  param.attr_timeout = entry.attr_timeout;
  param.entry_timeout = entry.entry_timeout;
  return param;
}

// An interrupted caller never takes the reference that the reply would have given it.
void reply_entry(fuse_req_t req, const Result<Entry>& entry) {
  if (!entry.ok()) {
    reply_error(req, entry.error());
    return;
  }
  RedirectFs& fs = fs_of(req);
  const fuse_entry_param param = entry_param(*entry);
  if (fuse_reply_entry(req, &param) == -ENOENT && entry->id != 0) fs.forget(entry->id, 1);
}

void reply_attributes(fuse_req_t req, const Result<Attributes>& attributes) {
  if (attributes.ok()) {
    fuse_reply_attr(req, &attributes->attr, attributes->timeout);
  } else {
    reply_error(req, attributes.error());
  }
}

/** Extended attributes: with size 0 the kernel asks only for the length. */
void reply_attribute_value(fuse_req_t req, const Result<std::string>& value, size_t size) {
  if (!value.ok()) {
    reply_error(req, value.error());
  } else if (size == 0) {
    fuse_reply_xattr(req, value->size());
  } else {
    fuse_reply_buf(req, value->data(), value->size());
  }
}

// Without ATOMIC_O_TRUNC and HANDLE_KILLPRIV the kernel itself truncates and clears the set-id bits, by SETATTR, for every writer.
void on_init(void*, fuse_conn_info* connection) {
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV);
  if ((connection->capable & FUSE_CAP_CACHE_SYMLINKS) != 0) connection->want |= FUSE_CAP_CACHE_SYMLINKS;
  // So that the kernel checks access control lists, which the modes alone do not tell.
  if ((connection->capable & FUSE_CAP_POSIX_ACL) != 0) connection->want |= FUSE_CAP_POSIX_ACL;
  connection->time_gran = 1;
#ifdef FUSE_DARWIN_CAP_THREAD_SAFE
  // Without it the kernel serialises operations on one node, and every walk begins at the shared root.
  fuse_darwin_set_feature_flag(connection, FUSE_DARWIN_CAP_THREAD_SAFE);
#endif
}

void on_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  answer(req, [&] { reply_entry(req, fs_of(req).lookup(caller_of(req), parent, name)); });
}

void on_forget(fuse_req_t req, fuse_ino_t id, uint64_t count) {
  fs_of(req).forget(id, count);
  fuse_reply_none(req);
}

void on_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) fs_of(req).forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(req);
}

void on_getattr(fuse_req_t req, fuse_ino_t id, fuse_file_info* info) {
  answer(req, [&] { reply_attributes(req, fs_of(req).getattr(caller_of(req), id, file_of(info))); });
}

AttributeChange change_of(const struct stat& attr, int to_set) {
  AttributeChange change;
  if (to_set & FUSE_SET_ATTR_MODE) change.mode = attr.st_mode & 07777;
  if (to_set & FUSE_SET_ATTR_UID) change.uid = attr.st_uid;
  if (to_set & FUSE_SET_ATTR_GID) change.gid = attr.st_gid;
  if (to_set & FUSE_SET_ATTR_SIZE) change.size = attr.st_size;
  if (to_set & FUSE_SET_ATTR_ATIME) change.atime = os::accessed_at(attr);
  if (to_set & FUSE_SET_ATTR_MTIME) change.mtime = os::modified_at(attr);
  if (to_set & FUSE_SET_ATTR_ATIME_NOW) change.atime = timespec{0, UTIME_NOW};
  if (to_set & FUSE_SET_ATTR_MTIME_NOW) change.mtime = timespec{0, UTIME_NOW};
  return change;
}

void on_setattr(fuse_req_t req, fuse_ino_t id, struct stat* attr, int to_set, fuse_file_info* info) {
  answer(req, [&] {
    AttributeChange change = change_of(*attr, to_set);
    change.clears_set_ids = KernelIo::request_clears_set_ids();
    reply_attributes(req, fs_of(req).setattr(caller_of(req), id, change, file_of(info)));
  });
}

void on_readlink(fuse_req_t req, fuse_ino_t id) {
  answer(req, [&] {
    const auto target = fs_of(req).readlink(id);
    if (target.ok()) {
      fuse_reply_readlink(req, target->c_str());
    } else {
      reply_error(req, target.error());
    }
  });
}

void on_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  answer(req, [&] { reply_entry(req, fs_of(req).mknod(caller_of(req), parent, name, mode, device)); });
}

void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  answer(req, [&] { reply_entry(req, fs_of(req).mkdir(caller_of(req), parent, name, mode)); });
}

void on_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  answer(req, [&] { reply_entry(req, fs_of(req).symlink(caller_of(req), parent, name, target)); });
}

void on_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t new_parent, const char* new_name) {
  answer(req, [&] { reply_entry(req, fs_of(req).link(caller_of(req), id, new_parent, new_name)); });
}

void on_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  answer(req, [&] { reply_status(req, fs_of(req).unlink(caller_of(req), parent, name)); });
}

void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  answer(req, [&] { reply_status(req, fs_of(req).rmdir(caller_of(req), parent, name)); });
}

void on_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
               unsigned flags) {
  answer(req, [&] { reply_status(req, fs_of(req).rename(caller_of(req), parent, name, new_parent, new_name, flags)); });
}

/** What the kernel remembers of a file's attributes is no longer so. */
void forget_attributes(fuse_req_t req, NodeId id) {
  (void)fuse_lowlevel_notify_inval_inode(service_of(req).session, id, -1, 0);
}

/**
 * Prepares the reply to OPEN or CREATE. Answers what the kernel will name the open file by.
 *
 * Node ids belong to one tree and generation, and every change to a tree goes through the mount or begins a new generation: pages
 * read before are still good, unless it was written to without them. What a file's disk has to say, it says at once or at fsync: only
 * from another machine does news come at close.
 */
std::unique_ptr<OpenFile> present(fuse_req_t req, NodeId id, std::unique_ptr<FileHandle> handle, fuse_file_info& info) {
  FuseService& service = service_of(req);
  const bool prefers_pages = os::is_plain_read(info.flags) && handle->node->is_small;
  auto way = service.passthrough.join(id, handle->fd->get(), prefers_pages);
  auto file = std::make_unique<OpenFile>(std::move(handle), std::move(way), info.flags);
  info.fh = reinterpret_cast<uint64_t>(file.get());
  info.keep_cache = file->way->is_direct() || file->renews_pages ? 0 : 1;
  info.noflush = file->handle->tree->directory->is_local() ? 1 : 0;
  return file;
}

/** Nobody asks before each write then: the set-id bits go when the file is opened. */
Status prepare_unseen_writes(fuse_req_t req, NodeId id, const OpenFile& file) {
  if (!file.writes_unseen || caller_of(req).uid == 0) return Status();
  const auto cleared = fs_of(req).clear_set_ids(*file.handle);
  if (!cleared.ok()) return cleared.failure();
  if (*cleared) forget_attributes(req, id);
  return Status();
}

void on_open(fuse_req_t req, fuse_ino_t id, fuse_file_info* info) {
  answer(req, [&] {
    auto handle = fs_of(req).open(id, info->flags);
    if (!handle.ok()) {
      reply_error(req, handle.error());
      return;
    }
    auto file = present(req, id, *std::move(handle), *info);
    if (const Status prepared = prepare_unseen_writes(req, id, *file); !prepared.ok()) {
      reply_status(req, prepared);
      return;
    }
    OpenFile* const opened = file.release();
    KernelIo::reply_with_backing(opened->way->backing());
    if (fuse_reply_open(req, info) == -ENOENT) delete opened;
  });
}

void on_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  answer(req, [&] {
    RedirectFs& fs = fs_of(req);
    auto created = fs.create(caller_of(req), parent, name, mode, info->flags);
    if (!created.ok()) {
      reply_error(req, created.error());
      return;
    }
    const fuse_entry_param param = entry_param(created->entry);
    OpenFile* const opened = present(req, param.ino, std::move(created->handle), *info).release();
    KernelIo::reply_with_backing(opened->way->backing());
    if (fuse_reply_create(req, &param, info) == -ENOENT) {
      delete opened;
      fs.forget(param.ino, 1);
    }
  });
}

void on_read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  answer(req, [&] {
    fuse_bufvec source = FUSE_BUFVEC_INIT(size);
    source.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
    source.buf[0].fd = file_of(info)->fd->get();
    source.buf[0].pos = offset;
    fuse_reply_data(req, &source, FUSE_BUF_SPLICE_MOVE);
  });
}

// The kernel asks for the attributes again before it shows or executes what was written to: it learns of cleared set-id bits then.
void on_write_buf(fuse_req_t req, fuse_ino_t, fuse_bufvec* source, off_t offset, fuse_file_info* info) {
  answer(req, [&] {
    const FileHandle& file = *file_of(info);
    if (KernelIo::request_clears_set_ids()) {
      if (const auto cleared = fs_of(req).clear_set_ids(file); !cleared.ok()) return reply_error(req, cleared.error());
    }
    fuse_bufvec target = FUSE_BUFVEC_INIT(fuse_buf_size(source));
    target.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
    target.buf[0].fd = file.fd->get();
    target.buf[0].pos = offset;
    const ssize_t written = fuse_buf_copy(&target, source, static_cast<fuse_buf_copy_flags>(0));
    if (written < 0) {
      reply_error(req, static_cast<int>(-written));
      return;
    }
    fs_of(req).wrote(file);
    fuse_reply_write(req, static_cast<size_t>(written));
  });
}

// Closing a duplicate makes the backing file system report what it delayed (a full quota, a lost server).
void on_flush(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  answer(req, [&] {
    const int twin = dup(file_of(info)->fd->get());
    // Without a descriptor to spare nothing is reported; close must not tell the caller EBADF of a good descriptor.
    reply_status(req, twin == -1 ? Status() : status_of(close(twin)));
  });
}

void on_release(fuse_req_t req, fuse_ino_t id, fuse_file_info* info) {
  (void)file_of(info);
  const std::unique_ptr<OpenFile> file(open_file_of(info));
  if (file->writes_unseen) forget_attributes(req, id);  // of what was written to a mapping the kernel tells no time
  reply_error(req, 0);
}

void on_fsync(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* info) {
  answer(req, [&] {
    const int fd = file_of(info)->fd->get();
    reply_status(req, data_only ? os::sync_data(fd) : status_of(fsync(fd)));
  });
}

void on_opendir(fuse_req_t req, fuse_ino_t id, fuse_file_info* info) {
  answer(req, [&] {
    auto handle = fs_of(req).opendir(caller_of(req), id);
    if (!handle.ok()) {
      reply_error(req, handle.error());
      return;
    }
    DirectoryHandle* const opened = handle->release();
    info->fh = reinterpret_cast<uint64_t>(opened);
    info->keep_cache = info->cache_readdir = fs_of(req).is_listing_cacheable(*opened);
    if (fuse_reply_open(req, info) == -ENOENT) delete opened;
  });
}

/** Packs directory entries into a reply of at most `size` bytes. */
class DirectoryReply {
 public:
  DirectoryReply(fuse_req_t req, size_t size, bool is_plus) : req_(req), buffer_(size), is_plus_(is_plus) {}

  bool add(const char* name, off_t next_offset, const Entry& entry) {
    char* const end = buffer_.data() + used_;
    const size_t room = buffer_.size() - used_;
    const fuse_entry_param param = entry_param(entry);
    const size_t needed = is_plus_ ? fuse_add_direntry_plus(req_, end, room, name, &param, next_offset)
                                   : fuse_add_direntry(req_, end, room, name, &entry.attr, next_offset);
    if (needed > room) return false;
    used_ += needed;
    return true;
  }

  // An error after some entries is told by the next call, which starts at the failed one.
  void send(const Status& status) {
    if (!status.ok() && used_ == 0) {
      reply_error(req_, status.error());
    } else {
      fuse_reply_buf(req_, buffer_.data(), used_);
    }
  }

 private:
  const fuse_req_t req_;
  std::vector<char> buffer_;
  const bool is_plus_;
  size_t used_ = 0;
};

void reply_directory(fuse_req_t req, size_t size, off_t offset, fuse_file_info* info, bool is_plus) {
  answer(req, [&] {
    DirectoryReply reply(req, size, is_plus);
    const Status status = fs_of(req).readdir(
        caller_of(req), directory_of(info), offset, is_plus,
        [&](const char* name, off_t next, const Entry& entry) { return reply.add(name, next, entry); });
    reply.send(status);
  });
}

void on_readdir(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  reply_directory(req, size, offset, info, false);
}

void on_readdirplus(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  reply_directory(req, size, offset, info, true);
}

void on_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  delete &directory_of(info);
  reply_error(req, 0);
}

void on_fsyncdir(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* info) {
  answer(req, [&] { reply_status(req, fs_of(req).fsyncdir(directory_of(info), data_only != 0)); });
}

void on_statfs(fuse_req_t req, fuse_ino_t id) {
  answer(req, [&] {
    const auto statistics = fs_of(req).statfs(caller_of(req), id);
    if (statistics.ok()) {
      fuse_reply_statfs(req, &*statistics);
    } else {
      reply_error(req, statistics.error());
    }
  });
}

void on_setxattr(fuse_req_t req, fuse_ino_t id, const char* name, const char* value, size_t size, int flags) {
  answer(req, [&] { reply_status(req, fs_of(req).setxattr(caller_of(req), id, name, value, size, flags)); });
}

void on_getxattr(fuse_req_t req, fuse_ino_t id, const char* name, size_t size) {
  answer(req, [&] { reply_attribute_value(req, fs_of(req).getxattr(caller_of(req), id, name, size), size); });
}

void on_listxattr(fuse_req_t req, fuse_ino_t id, size_t size) {
  answer(req, [&] { reply_attribute_value(req, fs_of(req).listxattr(caller_of(req), id, size), size); });
}

void on_removexattr(fuse_req_t req, fuse_ino_t id, const char* name) {
  answer(req, [&] { reply_status(req, fs_of(req).removexattr(caller_of(req), id, name)); });
}

void on_access(fuse_req_t req, fuse_ino_t id, int mask) {
  answer(req, [&] { reply_status(req, fs_of(req).access(caller_of(req), id, mask)); });
}

void on_fallocate(fuse_req_t req, fuse_ino_t, int mode, off_t offset, off_t length, fuse_file_info* info) {
  answer(req, [&] {
    const FileHandle& file = *file_of(info);
    // The request does not say it: whoever is not root may not leave set-id bits on what he changes.
    if (caller_of(req).uid != 0) {
      if (const auto cleared = fs_of(req).clear_set_ids(file); !cleared.ok()) return reply_error(req, cleared.error());
    }
    reply_status(req, fs_of(req).fallocate(file, mode, offset, length));
  });
}

void on_lseek(fuse_req_t req, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
  answer(req, [&] {
    const off_t position = lseek(file_of(info)->fd->get(), offset, whence);
    if (position == -1) {
      reply_error(req, errno);
    } else {
      fuse_reply_lseek(req, position);
    }
  });
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops = {};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.forget_multi = on_forget_multi;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.readlink = on_readlink;
  ops.mknod = on_mknod;
  ops.mkdir = on_mkdir;
  ops.symlink = on_symlink;
  ops.link = on_link;
  ops.unlink = on_unlink;
  ops.rmdir = on_rmdir;
  ops.rename = on_rename;
  ops.open = on_open;
  ops.create = on_create;
  ops.read = on_read;
  ops.write_buf = on_write_buf;
  ops.flush = on_flush;
  ops.release = on_release;
  ops.fsync = on_fsync;
  ops.opendir = on_opendir;
  ops.readdir = on_readdir;
  ops.readdirplus = on_readdirplus;
  ops.releasedir = on_releasedir;
  ops.fsyncdir = on_fsyncdir;
  ops.statfs = on_statfs;
  ops.setxattr = on_setxattr;
  ops.getxattr = on_getxattr;
  ops.listxattr = on_listxattr;
  ops.removexattr = on_removexattr;
  ops.access = on_access;
  ops.fallocate = on_fallocate;
  ops.lseek = on_lseek;
  return ops;  // no lock handlers: locks stay in the kernel
}

}  // namespace

const fuse_lowlevel_ops& fuse_operations() {
  static const fuse_lowlevel_ops operations = make_operations();
  return operations;
}

}  // namespace obfs
