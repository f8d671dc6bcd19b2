/*
 * What a build user may try, in the name of whoever runs it; says one line for each attempt: its name and how it was answered.
 *
 *   attack-operations directory DIR              every operation on what lies in DIR
 *   attack-operations daemon PID                 signals, ptrace and /proc of a process
 *   attack-operations pass DIR UID UID           one uid opens DIR's files and hands them to another over a socket
 *   attack-operations change DIR UID UID         becomes another uid in mid-session, with descriptors and a working directory
 *   attack-operations swap DIR SECONDS           swaps DIR/way between a directory and a link to DIR/trap's target, until told to end
 *   attack-operations through DIR SECONDS        writes, makes and relabels through DIR/way
 *   attack-operations hammer DIR NAME SECONDS    every operation on DIR/NAME, whatever it answers
 *   attack-operations getcwd DIR COUNT           getcwd in DIR and in DIR/lib
 *   attack-operations hold FILE COUNT            opens FILE COUNT times, says "held", and waits for its end
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static void say(const char *attempt, long answer) {
  printf("%s: %s\n", attempt, answer >= 0 ? "done" : strerrorname_np(errno));
  fflush(stdout);
}
#define TRY(call) say(#call, (long)(call))

static long opened(int fd) {
  if (fd >= 0) close(fd);
  return fd;
}

static long listed(const char *path) {
  DIR *const stream = opendir(path);
  if (stream == NULL) return -1;
  while (readdir(stream) != NULL) {}
  return closedir(stream);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* "theirs*" belong to another, "mine*" to the caller, "ours*" to the group 7790. */
static void every_operation(const char *directory) {
  struct stat attr;
  struct statvfs statistics;
  char text[64];
  const struct timespec then[2] = {{1, 0}, {2, 0}};
  if (chdir(directory) != 0) {
    say("chdir", -1);
    return;
  }
  TRY(listed("."));
  TRY(access(".", R_OK));
  TRY(access(".", W_OK));
  TRY(access(".", X_OK));
  TRY(statvfs(".", &statistics));
  TRY(stat("theirs", &attr));
  TRY(stat("missing", &attr));
  TRY(opened(open("theirs", O_RDONLY)));
  TRY(opened(open("theirs-secret", O_RDONLY)));
  TRY(opened(open("theirs", O_WRONLY)));
  TRY(opened(open("theirs", O_RDWR | O_CREAT, 0644)));
  TRY(opened(open("theirs", O_WRONLY | O_TRUNC)));
  TRY(opened(open("ours", O_RDWR)));
  TRY(opened(open("ours-not", O_RDONLY)));
  TRY(opened(open("mine", O_RDWR)));
  TRY(truncate("theirs", 0));
  TRY(chmod("theirs", 0777));
  TRY(chmod("mine", 0600));
  TRY(chmod("ours", 0777));
  TRY(chown("theirs", getuid(), -1));
  TRY(chown("mine", 0, -1));
  TRY(chown("mine", -1, 7790));
  TRY(chown("mine", -1, 7791));
  TRY(utimensat(AT_FDCWD, "theirs", then, 0));
  TRY(utimensat(AT_FDCWD, "theirs", NULL, 0));
  TRY(utimensat(AT_FDCWD, "mine", then, 0));
  TRY(setxattr("theirs", "user.x", "1", 1, 0));
  TRY(setxattr("theirs", "trusted.x", "1", 1, 0));
  TRY(setxattr("theirs", "security.capability", "\1\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0));
  TRY(setxattr("theirs", "system.posix_acl_access", "\2\0\0\0", 4, 0));
  TRY(removexattr("theirs", "user.colour"));
  TRY(setxattr("mine", "user.x", "1", 1, 0));
  TRY(getxattr("theirs", "user.colour", text, sizeof text));
  TRY(getxattr("theirs", "trusted.colour", text, sizeof text));
  TRY(link("theirs", "linked"));
  TRY(link("mine", "linked-mine"));
  TRY(symlink("/etc/passwd", "symlinked"));
  TRY(mkdir("made", 0755));
  TRY(mknod("fifo", S_IFIFO | 0644, 0));
  TRY(mknod("device", S_IFCHR | 0666, makedev(1, 3)));
  TRY(opened(open("created", O_WRONLY | O_CREAT | O_EXCL, 04755)));
  TRY(rename("theirs", "renamed"));
  TRY(rename("mine", "theirs"));
  TRY(rename("mine", "renamed-mine"));
  TRY(rename("theirs-directory", "mine-directory"));
  TRY(syscall(SYS_renameat2, AT_FDCWD, "theirs", AT_FDCWD, "mine-directory", 2));
  TRY(rename("theirs-directory/in", "stolen"));
  TRY(rename("mine-directory/in", "theirs-directory/planted"));
  TRY(listed("theirs-directory"));
  TRY(listed("theirs-closed"));
  TRY(stat("theirs-closed/in", &attr));
  TRY(opened(open("theirs-closed/in", O_RDONLY)));
  TRY(unlink("theirs-directory/in"));
  TRY(unlink("open-directory/theirs"));
  TRY(rename("open-directory/theirs", "open-directory/x"));
  TRY(unlink("open-directory/mine"));
  TRY(unlink("theirs"));
  TRY(unlink("ours"));
  TRY(rmdir("theirs-empty"));
  TRY(unlink("mine-second"));
  TRY(rmdir("mine-empty"));
}

static void against_daemon(pid_t pid) {
  char path[128], text[256];
  struct iovec mine = {text, 8}, theirs = {(void *)0x1000, 8};
  struct rlimit limit = {0, 0};
  char *const set = calloc(1, 128);
  TRY(kill(pid, 0));
  TRY(kill(pid, SIGTERM));
  TRY(kill(pid, SIGKILL));
  TRY(kill(pid, SIGSTOP));
  TRY(syscall(SYS_tgkill, pid, pid, SIGKILL));
  TRY(ptrace(PTRACE_ATTACH, pid, NULL, NULL));
  TRY(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
  TRY(process_vm_readv(pid, &mine, 1, &theirs, 1, 0));
  TRY(process_vm_writev(pid, &mine, 1, &theirs, 1, 0));
  TRY(prlimit(pid, RLIMIT_NOFILE, &limit, NULL));
  TRY(setpriority(PRIO_PROCESS, (id_t)pid, 19));
  TRY(syscall(SYS_sched_setaffinity, pid, 128, set));
  const int process = (int)syscall(SYS_pidfd_open, pid, 0);
  for (int fd = 0; fd < 40; fd++)
    if (syscall(SYS_pidfd_getfd, process, fd, 0) >= 0) printf("pidfd_getfd %d: done\n", fd);
  for (const char *const *name = (const char *const[]){"mem", "environ", "fd", "root", "cwd", "exe", "maps", NULL}; *name != NULL; name++) {
    snprintf(path, sizeof path, "/proc/%d/%s", pid, *name);
    const bool is_link = strcmp(*name, "root") == 0 || strcmp(*name, "cwd") == 0 || strcmp(*name, "exe") == 0;
    say(*name, is_link ? readlink(path, text, sizeof text) : opened(open(path, O_RDONLY)));
  }
  snprintf(path, sizeof path, "/proc/%d/root/etc/passwd", pid);
  say("root/etc/passwd", opened(open(path, O_RDONLY)));
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *const threads = opendir(path);
  for (const struct dirent *thread; threads != NULL && (thread = readdir(threads)) != NULL;) {
    const pid_t tid = atoi(thread->d_name);
    if (tid == 0) continue;
    if (syscall(SYS_tgkill, pid, tid, 0) == 0) printf("signal to thread: done\n");
    if (ptrace(PTRACE_ATTACH, tid, NULL, NULL) == 0) printf("ptrace of thread: done\n");
    snprintf(path, sizeof path, "/proc/%d/task/%d/fd", pid, tid);
    if (opened(open(path, O_RDONLY)) >= 0) printf("descriptors of thread: done\n");
  }
}

static void become(uid_t uid) {
  if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0) abort();
}

static void say_content(const char *what, int fd) {
  char text[64] = "";
  printf("%s: %s\n", what, fd < 0 ? strerrorname_np(errno) : pread(fd, text, sizeof text - 1, 0) < 0 ? strerrorname_np(errno) : text);
  if (fd >= 0) close(fd);
}

static void send_descriptor(int socket, int fd) {
  char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
  struct iovec data = {&byte, 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (sendmsg(socket, &message, 0) != 1) abort();
}

static int receive_descriptor(int socket) {
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
  struct iovec data = {&byte, 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(socket, &message, 0) != 1) abort();
  int fd = -1;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

/* What a holder of another's descriptors gets from them: `root` is the prefix, `below` its lib, `file` its who. */
static void use_descriptors(int root, int below, int file) {
  say_content("who by the file", dup(file));
  say_content("who at the prefix", openat(root, "who", O_RDONLY));
  say_content("who below", openat(below, "who", O_RDONLY));
  say_content("private below", openat(below, "private", O_RDONLY));
  say_content("who by ..", openat(below, "../who", O_RDONLY));
  say("create below", opened(openat(below, "planted", O_CREAT | O_WRONLY, 0644)));
  say("write", opened(openat(below, "who", O_WRONLY)));
}

static void pass(const char *directory, uid_t from, uid_t to) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0) abort();
  if (fork() == 0) {
    become(from);
    if (chdir(directory) != 0) abort();
    send_descriptor(pair[0], open(".", O_RDONLY | O_DIRECTORY));
    send_descriptor(pair[0], open("lib", O_RDONLY | O_DIRECTORY));
    send_descriptor(pair[0], open("who", O_RDONLY));
    _exit(0);
  }
  become(to);
  const int root = receive_descriptor(pair[1]), below = receive_descriptor(pair[1]), file = receive_descriptor(pair[1]);
  use_descriptors(root, below, file);
  wait(NULL);
}

static void change(const char *directory, uid_t from, uid_t to) {
  if (setgroups(0, NULL) != 0 || setresgid(from, from, 0) != 0 || setresuid(from, from, 0) != 0) abort();
  if (chdir(directory) != 0 || chdir("lib") != 0) abort();
  const int root = open("..", O_RDONLY | O_DIRECTORY), below = open(".", O_RDONLY | O_DIRECTORY), file = open("../who", O_RDONLY);
  if (setresuid(-1, 0, -1) != 0) abort();
  become(to);
  use_descriptors(root, below, file);
  say_content("who in the working directory", open("who", O_RDONLY));
  char path[4096];
  snprintf(path, sizeof path, "%s/who", directory);
  say_content("who by its path", open(path, O_RDONLY));
}

static void swap(const char *directory, double seconds) {
  if (chdir(directory) != 0) abort();
  for (const double deadline = now() + seconds; now() < deadline;) syscall(SYS_renameat2, AT_FDCWD, "way", AT_FDCWD, "trap", 2);
}

static void through(const char *directory, double seconds) {
  const struct timespec then[2] = {{1, 0}, {1, 0}};
  long done = 0;
  if (chdir(directory) != 0) abort();
  for (const double deadline = now() + seconds; now() < deadline; done++) {
    const int fd = open("way/file", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd >= 0 && write(fd, "attack", 6) < 0) abort();
    if (fd >= 0) close(fd);
    (void)chmod("way/file", 0777);
    (void)chown("way/file", getuid(), getgid());
    (void)utimensat(AT_FDCWD, "way/file", then, 0);
    (void)setxattr("way/file", "user.attack", "1", 1, 0);
    (void)mkdir("way/made", 0777);
    (void)symlink("x", "way/symlink");
    (void)link("way/file", "way/linked");
    (void)truncate("way/file", 0);
    (void)rename("way/file", "way/moved");
    (void)unlink("way/moved");
    (void)unlink("way/linked");
    (void)rmdir("way/made");
    (void)unlink("way/symlink");
    (void)unlink("way/precious");
  }
  printf("rounds: %ld\n", done);
}

static void hammer(const char *directory, const char *name, double seconds) {
  char path[4096], below[5000], text[64];
  struct stat attr;
  long got = 0, rounds = 0;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  snprintf(below, sizeof below, "%s/7731.7731.0000", path);
  if (chdir(directory) != 0) abort();
  (void)mkdir("mine", 0755);
  for (const double deadline = now() + seconds; now() < deadline; rounds++) {
    (void)stat(path, &attr);
    got += stat(below, &attr) == 0;
    got += opened(open(path, O_RDONLY)) >= 0;
    got += opened(open(below, O_RDONLY)) >= 0;
    got += opened(open(path, O_CREAT | O_WRONLY, 0644)) >= 0;
    got += opened(open(path, O_CREAT | O_EXCL | O_WRONLY, 0644)) >= 0;
    got += mkdir(path, 0755) == 0;
    got += mkdir(below, 0755) == 0;
    got += rmdir(path) == 0;
    got += rmdir(below) == 0;
    got += unlink(path) == 0;
    got += symlink("/etc", path) == 0;
    got += link("who", path) == 0;
    got += mknod(path, S_IFIFO | 0644, 0) == 0;
    got += rename(path, "mine") == 0;
    got += rename("mine", path) == 0;
    got += rename("mine", below) == 0;
    got += syscall(SYS_renameat2, AT_FDCWD, "mine", AT_FDCWD, path, 2) == 0;
    got += chmod(path, 0777) == 0;
    got += chown(path, getuid(), getgid()) == 0;
    got += utimensat(AT_FDCWD, path, NULL, 0) == 0;
    got += setxattr(path, "user.x", "1", 1, 0) == 0;
    got += chdir(path) == 0;
    got += readlink(path, text, sizeof text) >= 0;
  }
  printf("rounds: %s\ngot: %ld\n", rounds > 10 ? "many" : "few", got);
}

static void many_getcwd(const char *directory, int count) {
  char below[4096], path[4096];
  int failures = 0;
  snprintf(below, sizeof below, "%s/lib", directory);
  for (int i = 0; i < count; i++) {
    const char *const where = i < count / 2 ? directory : below;
    if (i % (count / 2) == 0 && chdir(where) != 0) abort();
    if (getcwd(path, sizeof path) == NULL || strcmp(path, where) != 0) ++failures;
    usleep(100); /* so that it lasts as long as the attack */
  }
  printf("failures: %d\n", failures);
}

static void hold(const char *file, int count) {
  for (int i = 0; i < count; i++) {
    if (open(file, O_RDONLY) >= 0) continue;
    printf("refused at %d: %s\n", i, strerrorname_np(errno));
    break;
  }
  puts("held");
  fflush(stdout);
  pause();
}

int main(int argc, char **argv) {
  const char *const what = argc > 2 ? argv[1] : "";
  umask(0);
  if (strcmp(what, "directory") == 0) every_operation(argv[2]);
  else if (strcmp(what, "daemon") == 0) against_daemon(atoi(argv[2]));
  else if (strcmp(what, "pass") == 0 && argc == 5) pass(argv[2], atoi(argv[3]), atoi(argv[4]));
  else if (strcmp(what, "change") == 0 && argc == 5) change(argv[2], atoi(argv[3]), atoi(argv[4]));
  else if (strcmp(what, "swap") == 0 && argc == 4) swap(argv[2], atof(argv[3]));
  else if (strcmp(what, "through") == 0 && argc == 4) through(argv[2], atof(argv[3]));
  else if (strcmp(what, "hammer") == 0 && argc == 5) hammer(argv[2], argv[3], atof(argv[4]));
  else if (strcmp(what, "getcwd") == 0 && argc == 4) many_getcwd(argv[2], atoi(argv[3]));
  else if (strcmp(what, "hold") == 0 && argc == 4) hold(argv[2], atoi(argv[3]));
  else return 2;
  return 0;
}
