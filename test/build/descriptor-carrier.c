// Carries an open file from one user to another over a socket, as a step might that wants to write to its result later.
//
//   carrier give UID SOCKET FILE FLAGS     opens FILE (below the working directory) as UID, sends it, ends
//   carrier take UID SOCKET HOW            as UID, listens, says "listening", takes what comes:
//     keep   has the descriptor; map: has it mapped, shared; leave: leaves it in the socket; directory: as keep
//   After a line on standard input a taker writes through what it has, and says how that went.

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void check(int failed, const char* what) {
  if (!failed) return;
  perror(what);
  exit(2);
}

static void become(const char* uid) {
  const int id = atoi(uid);
  check(setgroups(0, NULL) != 0 || setgid(id) != 0 || setuid(id) != 0, "setuid");
}

static struct sockaddr_un address_of(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  return address;
}

union control {
  char bytes[CMSG_SPACE(sizeof(int))];
  struct cmsghdr header;
};

static struct msghdr message_with(union control* control, struct iovec* one) {
  return (struct msghdr){
      .msg_iov = one, .msg_iovlen = 1, .msg_control = control->bytes, .msg_controllen = sizeof(control->bytes)};
}

static int give(char** argv) {
  become(argv[0]);
  const int flags = strcmp(argv[3], "write") == 0 ? O_RDWR | O_CREAT : O_RDONLY;
  const int file = open(argv[2], flags, 0666);
  check(file < 0, argv[2]);
  const int to = socket(AF_UNIX, SOCK_STREAM, 0);
  const struct sockaddr_un address = address_of(argv[1]);
  check(connect(to, (const struct sockaddr*)&address, sizeof(address)) != 0, "connect");
  union control control;
  struct iovec one = {.iov_base = "x", .iov_len = 1};
  struct msghdr message = message_with(&control, &one);
  struct cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &file, sizeof(file));
  check(sendmsg(to, &message, 0) != 1, "sendmsg");
  return 0;
}

static int receive(int from) {
  union control control;
  char byte;
  struct iovec one = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = message_with(&control, &one);
  check(recvmsg(from, &message, 0) != 1, "recvmsg");
  int file;
  memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(file));
  return file;
}

static void say(const char* what) {
  puts(what);
  fflush(stdout);
}

static const char* write_late(int file, char* mapped, const char* how) {
  if (strcmp(how, "directory") == 0) {
    const int made = openat(file, "late", O_CREAT | O_WRONLY, 0644);
    return made >= 0 ? "written" : strerror(errno);
  }
  if (mapped != NULL) return memcpy(mapped, "late", 4), "written";
  return pwrite(file, "late", 4, 0) == 4 ? "written" : strerror(errno);
}

static int take(char** argv) {
  become(argv[0]);
  const char* const how = argv[2];
  const int door = socket(AF_UNIX, SOCK_STREAM, 0);
  const struct sockaddr_un address = address_of(argv[1]);
  umask(0);
  check(bind(door, (const struct sockaddr*)&address, sizeof(address)) != 0 || listen(door, 1) != 0, "listen");
  say("listening");
  const int from = accept(door, NULL, NULL);
  int file = -1;
  char* mapped = NULL;
  if (strcmp(how, "leave") != 0) file = receive(from);
  if (strcmp(how, "map") == 0) {
    mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(mapped == MAP_FAILED, "mmap");
    close(file);
  }
  say("taken");
  getchar();
  if (file < 0) file = receive(from);
  say(write_late(file, mapped, how));
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 6 && strcmp(argv[1], "give") == 0) return give(argv + 2);
  if (argc == 5 && strcmp(argv[1], "take") == 0) return take(argv + 2);
  return 64;
}
