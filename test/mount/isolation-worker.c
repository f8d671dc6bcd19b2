/*
 * One process of the isolation stress: `work` is a caller that mixes every operation over names which all callers share, `control`
 * rewrites the scoreboard links meanwhile.
 *
 * Everything in a tree tells whose it is: `who`, `self`, the attribute `user.tree`, the times of `who` and the names `only-TOKEN` and
 * `in-TOKEN` carry the tree's token ("7735-a"), and what callers write starts with it. The history in shared memory tells which
 * trees a caller may have met during an operation: those from the last rewrite that was done before it to the last one that was
 * begun when it ended. Mostly that is one. The first thing met that belongs elsewhere ends the process with code 1.
 *
 *   isolation-worker work    HISTORY SECONDS SEED PREFIX UID
 *   isolation-worker control HISTORY SECONDS SEED SCOREBOARD TREES
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { UIDS = 4, FIRST_UID = 7735, UNMAPPED = 7739, HISTORY = 1 << 16, NAMES = 6, TOKEN = 16 };
enum { TREE_A, TREE_B, BROKEN, COVERED, STATES };

struct history {
  _Atomic uint32_t begun, done;
  uint8_t states[HISTORY];
};

static struct history *histories;
static uint64_t seed;
static const char *prefix;
static int uid;
static uint64_t operations;
static char doing[256];

static uint32_t roll(uint32_t sides) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)(seed >> 20) % sides;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void violation(const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("VIOLATION uid %d, operation %lu, %s: ", uid, (unsigned long)operations, doing);
  vprintf(format, args);
  printf("\n");
  exit(1);
}

static void token_of(int state, char *token) {
  if (state == COVERED) strcpy(token, "covered");
  else snprintf(token, TOKEN, "%d-%c", uid, state == TREE_A ? 'a' : 'b');
}

/* ---- what this caller may meet during one operation ---- */

struct window {
  uint32_t from;
  bool may[STATES];
  int count;
};

static struct history *own(void) { return uid == UNMAPPED ? NULL : &histories[uid - FIRST_UID]; }

static struct window begin(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(doing, sizeof doing, format, args);
  ++operations;
  struct window window = {0};
  if (own() != NULL) window.from = atomic_load(&own()->done);
  return window;
}

static void end(struct window *window) {
  const int error = errno;
  memset(window->may, 0, sizeof window->may);
  if (own() == NULL) window->may[COVERED] = true;
  else
    for (uint32_t n = window->from, last = atomic_load(&own()->begun); n <= last; n++) window->may[own()->states[n % HISTORY]] = true;
  window->count = 0;
  for (int state = 0; state < STATES; state++) window->count += window->may[state];
  errno = error;
}

/* Which state a token stands for; it must be one that may be met. */
static int check_token(const struct window *window, const char *token) {
  for (int state = 0; state < STATES; state++) {
    char mine[TOKEN];
    if (state == BROKEN) continue;
    token_of(state, mine);
    if (strncmp(token, mine, strlen(mine)) == 0) {
      if (!window->may[state]) violation("met %s, which is not the current tree", token);
      return state;
    }
  }
  violation("met \"%s\", which is not this caller's", token);
  return BROKEN;
}

static bool is_one_of(int error, const int *errors) {
  for (; *errors != 0; errors++)
    if (*errors == error) return true;
  return false;
}

/* Answers whether the call succeeded. A failure must be EACCES of a broken link, or one of those that other callers of this uid bring about. */
#define RACES ENOENT, EEXIST, ENOTEMPTY, ENOTDIR, EISDIR
static bool check_answer(struct window *window, bool succeeded, const int *errors) {
  end(window);
  if (succeeded) {
    if (window->count == 1 && window->may[BROKEN]) violation("succeeded though the link is broken");
    return true;
  }
  if (errno == EACCES && (window->may[BROKEN] || uid == UNMAPPED)) return false;
  if (window->count == 1 && window->may[BROKEN]) violation("%s, but the link is broken", strerror(errno));
  if (errno == EXDEV && window->count > 1) return false;
  if (!is_one_of(errno, errors)) violation("%s", strerror(errno));
  return false;
}
#define SUCCEEDED(window, condition, ...) check_answer(window, condition, (const int[]){__VA_ARGS__, 0})

static uid_t owner(void) { return uid == UNMAPPED ? 0 : (uid_t)uid; }

static void check_owner(const struct stat *attr, uid_t expected) {
  if (attr->st_uid != expected) violation("owner %u", attr->st_uid);
}

/* ---- what every tree has ---- */

static void read_who(void) {
  char path[512], text[64] = "";
  snprintf(path, sizeof path, "%s/%swho", prefix, roll(2) ? "lib/" : "");
  struct window window = begin("read %s", path);
  const int fd = open(path, O_RDONLY);
  const bool opened = SUCCEEDED(&window, fd >= 0, EPROTO);
  if (!opened) return;
  struct stat attr;
  if (read(fd, text, sizeof text - 1) < 0 || fstat(fd, &attr) != 0) violation("%s", strerror(errno));
  const int state = check_token(&window, text);
  check_owner(&attr, owner());
  if (attr.st_mtime != 1000000 + state) violation("time %ld with content %s", (long)attr.st_mtime, text);
  const char *map = mmap(NULL, 16, PROT_READ, roll(2) ? MAP_SHARED : MAP_PRIVATE, fd, 0);
  if (map == MAP_FAILED) violation("mmap: %s", strerror(errno));
  if (memcmp(map, text, strlen(text)) != 0) violation("mapped pages differ from what was read");
  munmap((void *)map, 16);
  close(fd);
}

static void stat_who(void) {
  char path[512];
  snprintf(path, sizeof path, "%s/%swho", prefix, roll(2) ? "lib/" : "");
  struct window window = begin("stat %s", path);
  struct stat attr;
  if (!SUCCEEDED(&window, stat(path, &attr) == 0, EPROTO)) return;
  check_owner(&attr, owner());
  const long state = attr.st_mtime - 1000000;
  if (state < 0 || state >= STATES || !window.may[state]) violation("times of another tree (%ld)", state);
}

static void read_marks(void) {
  char path[512], text[64] = "";
  const bool is_link = roll(2);
  snprintf(path, sizeof path, "%s/%s%s", prefix, roll(2) ? "lib/" : "", is_link ? "self" : "who");
  struct window window = begin("%s %s", is_link ? "readlink" : "getxattr", path);
  const ssize_t length = is_link ? readlink(path, text, sizeof text - 1) : getxattr(path, "user.tree", text, sizeof text - 1);
  if (SUCCEEDED(&window, length >= 0, EPROTO)) check_token(&window, text);
}

static void look_for_names(void) {
  char path[512], token[TOKEN], mine[TOKEN];
  const int whose = roll(UIDS + 1), which = roll(2);
  if (whose == UIDS) strcpy(token, "covered");
  else snprintf(token, sizeof token, "%d-%c", FIRST_UID + whose, which ? 'b' : 'a');
  snprintf(path, sizeof path, "%s/%s-%s", prefix, roll(2) ? "only" : "lib/in", token);
  struct window window = begin("look for %s", path);
  struct stat attr;
  const bool found = SUCCEEDED(&window, stat(path, &attr) == 0, ENOENT);
  if (found) {
    check_token(&window, token);
    check_owner(&attr, owner());
  } else if (errno == ENOENT && window.count == 1) {
    for (int state = 0; state < STATES; state++) {
      if (!window.may[state] || state == BROKEN) continue;
      token_of(state, mine);
      if (strcmp(mine, token) == 0) violation("missing in its own tree");
    }
  }
}

static void list(void) {
  char path[512];
  const bool below = roll(2);
  snprintf(path, sizeof path, "%s%s", prefix, below ? "/lib" : "");
  struct window window = begin("list %s", path);
  DIR *const stream = opendir(path);
  if (!SUCCEEDED(&window, stream != NULL, EPROTO)) return;
  int marks = 0;
  const char *const mark = below ? "in-" : "only-";
  for (const struct dirent *found; (found = readdir(stream)) != NULL;) {
    if (strncmp(found->d_name, mark, strlen(mark)) != 0) continue;
    check_token(&window, found->d_name + strlen(mark));
    ++marks;
  }
  if (marks != 1) violation("%d names of trees in one listing", marks);
  closedir(stream);
}

/* ---- open files and directories outlive a rewrite, and keep their tree ---- */

enum { HELD = 4 };
static struct {
  int file, directory;
  char token[TOKEN];
} held[HELD];

static void hold(int slot) {
  char path[512];
  snprintf(path, sizeof path, "%s/lib", prefix);
  struct window window = begin("hold %s", path);
  const int directory = open(path, O_RDONLY | O_DIRECTORY);
  if (!SUCCEEDED(&window, directory >= 0, EPROTO)) return;
  memset(held[slot].token, 0, TOKEN);
  if (readlinkat(directory, "self", held[slot].token, TOKEN - 1) < 0) violation("self: %s", strerror(errno));
  check_token(&window, held[slot].token);
  held[slot].directory = directory;
  held[slot].file = openat(directory, "who", O_RDONLY);
  if (held[slot].file < 0) violation("who: %s", strerror(errno));
}

static void let_go(int slot) {
  close(held[slot].file);
  close(held[slot].directory);
  held[slot].directory = -1;
}

static void check_content(int directory, const char *name, const char *token) {
  char text[64] = "";
  struct stat attr;
  const int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    if (errno != ENOENT && errno != ELOOP) violation("open %s: %s", name, strerror(errno));
    return;
  }
  if (fstat(fd, &attr) != 0) violation("fstat %s: %s", name, strerror(errno));
  check_owner(&attr, uid);
  if (S_ISREG(attr.st_mode)) {
    if (read(fd, text, sizeof text - 1) < 0) violation("read %s: %s", name, strerror(errno));
    if (text[0] != '\0' && text[0] != '?' && strncmp(text, token, strlen(token)) != 0) violation("%s holds \"%s\", in %s", name, text, token);
  }
  close(fd);
}

static bool is_race(int error) {
  return is_one_of(error, (const int[]){RACES, ELOOP, EBUSY, EINVAL, EMLINK, ENODATA, ENOTSUP, EPERM, 0});
}

static void write_through(int directory, const char *name, const char *token) {
  const int fd = openat(directory, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | (roll(2) ? O_TRUNC : 0), 0644);
  if (fd < 0) {
    if (!is_race(errno)) violation("create %s: %s", name, strerror(errno));
    return;
  }
  if (pwrite(fd, token, strlen(token), 0) < 0) violation("write %s: %s", name, strerror(errno));
  if (roll(3) == 0) {
    char *map = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) violation("mmap: %s", strerror(errno));
    (void)map;
    munmap(map, 64);
  }
  close(fd);
}

/* Names below a directory that is held: all of them strictly in its tree, also after the link was rewritten. */
static void use_held(void) {
  const int slot = roll(HELD);
  if (held[slot].directory < 0) {
    hold(slot);
    return;
  }
  if (roll(40) == 0) {
    let_go(slot);
    return;
  }
  const int directory = held[slot].directory;
  const char *const token = held[slot].token;
  char name[32], other[32], text[64] = "";
  snprintf(name, sizeof name, "n%u", roll(NAMES));
  snprintf(other, sizeof other, "n%u", roll(NAMES));
  const unsigned what = roll(16);
  ++operations;
  snprintf(doing, sizeof doing, "held %s, action %u, %s, %s", token, what, name, other);
  int answer = 0;
  switch (what) {
    case 0: case 1: write_through(directory, name, token); return;
    case 2: case 3: check_content(directory, name, token); return;
    case 4: answer = renameat(directory, name, directory, other); break;
    case 5: answer = linkat(directory, name, directory, other, 0); break;
    case 6: answer = unlinkat(directory, name, 0); break;
    case 7: answer = mkdirat(directory, name, 0755); break;
    case 8: answer = unlinkat(directory, name, AT_REMOVEDIR); break;
    case 9: answer = symlinkat(token, directory, name); break;
    case 10: answer = fchmodat(directory, name, roll(2) ? 0644 : 0600, 0); break;
    case 11: answer = utimensat(directory, name, NULL, AT_SYMLINK_NOFOLLOW); break;
    case 12: answer = (int)readlinkat(directory, name, text, sizeof text - 1);
      if (answer > 0 && strcmp(text, token) != 0) violation("link of %s", text);
      break;
    case 13: {
      if (pread(held[slot].file, text, sizeof text - 1, 0) < 0) violation("held file: %s", strerror(errno));
      if (strncmp(text, token, strlen(token)) != 0) violation("the held file turned into %s", text);
      return;
    }
    case 14: {
      const int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      if (fd < 0) return;
      answer = roll(2) ? fsetxattr(fd, "user.tree", token, strlen(token), 0) : (int)fgetxattr(fd, "user.tree", text, sizeof text - 1);
      // "?" is what action 11 of another worker of this uid sets, which does not know the tree it meets.
      if (answer > 0 && text[0] != '?' && strncmp(text, token, strlen(token)) != 0) violation("attribute of %s", text);
      const int error = errno;
      close(fd);
      errno = error;
      break;
    }
    case 15: {
      memset(text, 0, sizeof text);
      if (readlinkat(directory, "self", text, sizeof text - 1) < 0) violation("self: %s", strerror(errno));
      if (strcmp(text, token) != 0) violation("the held directory turned into %s", text);
      return;
    }
  }
  if (answer < 0 && !is_race(errno)) violation("%s", strerror(errno));
}

/* ---- names at the shared root itself, by their paths ---- */

static void write_at_root(const char *path) {
  struct window window = begin("create %s", path);
  const int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (!SUCCEEDED(&window, fd >= 0, RACES, ELOOP, ESTALE)) return;
  char token[TOKEN] = "?";
  if (window.count == 1)
    for (int state = 0; state < STATES; state++)
      if (window.may[state]) token_of(state, token);
  struct stat attr;
  if (fstat(fd, &attr) != 0) violation("fstat: %s", strerror(errno));
  check_owner(&attr, uid);
  if (pwrite(fd, token, strlen(token) + 1, 0) < 0) violation("write: %s", strerror(errno));
  close(fd);
}

static void read_at_root(const char *path) {
  struct window window = begin("read %s", path);
  const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!SUCCEEDED(&window, fd >= 0, RACES, ELOOP)) return;
  char text[64] = "";
  struct stat attr;
  if (fstat(fd, &attr) != 0) violation("fstat: %s", strerror(errno));
  check_owner(&attr, uid);
  if (S_ISREG(attr.st_mode)) {
    if (read(fd, text, sizeof text - 1) < 0) violation("read: %s", strerror(errno));
    if (text[0] != '\0' && text[0] != '?') check_token(&window, text);
  }
  close(fd);
}

static void use_root(void) {
  char path[512], other[512], text[64];
  snprintf(path, sizeof path, "%s/%sn%u", prefix, roll(4) ? "" : "lib/", roll(NAMES));
  snprintf(other, sizeof other, "%s/n%u", prefix, roll(NAMES));
  const unsigned what = roll(14);
  if (what < 2) return write_at_root(other);
  if (what < 4) return read_at_root(other);
  struct window window = begin("action %u on %s, %s", what, path, other);
  int answer = 0;
  struct stat attr;
  switch (what) {
    case 4: answer = rename(path, other); break;
    case 5: answer = link(path, other); break;
    case 6: answer = unlink(other); break;
    case 7: answer = mkdir(other, 0755); break;
    case 8: answer = rmdir(other); break;
    case 9: answer = symlink("?", other); break;
    case 10: answer = lstat(path, &attr); break;
    case 11: answer = setxattr(other, "user.tree", "?", 1, 0); break;
    case 12: answer = lchown(other, uid, -1); break;
    case 13: answer = (int)readlink(other, text, sizeof text); break;
  }
  // EPERM: hard links to symbolic links and attributes of them. EXDEV: nothing is renamed from below to the shared root.
  const int exdev = what == 4 ? EXDEV : 0;
  const bool done = SUCCEEDED(&window, answer >= 0, RACES, ELOOP, EINVAL, EPERM, EBUSY, ESTALE, exdev);
  if (done && what == 10) check_owner(&attr, uid);
}

static int work(double seconds) {
  for (int slot = 0; slot < HELD; slot++) held[slot].directory = -1;
  for (const double deadline = now() + seconds; now() < deadline;) {
    for (int i = 0; i < 64; i++) {
      const uint32_t what = roll(10);
      if (what == 0) read_who();
      else if (what == 1) stat_who();
      else if (what == 2) read_marks();
      else if (what == 3) look_for_names();
      else if (what == 4) list();
      else if (uid == UNMAPPED) read_who();
      else if (what < 8) use_held();
      else use_root();
    }
  }
  printf("operations %lu\n", (unsigned long)operations);
  return 0;
}

/* ---- the one that rewrites links ---- */

static void point(const char *scoreboard, const char *trees, int which, int state) {
  struct history *const history = &histories[which];
  char target[512], fresh[512], link[512];
  if (state == BROKEN) strcpy(target, "/nowhere");
  else snprintf(target, sizeof target, "%s/%d-%c", trees, FIRST_UID + which, state == TREE_A ? 'a' : 'b');
  snprintf(fresh, sizeof fresh, "%s/.new", scoreboard);
  snprintf(link, sizeof link, "%s/%d", scoreboard, FIRST_UID + which);
  const uint32_t next = history->done + 1;
  history->states[next % HISTORY] = state;
  atomic_store(&history->begun, next);
  if (symlink(target, fresh) != 0 || rename(fresh, link) != 0) violation("point: %s", strerror(errno));
  atomic_store(&history->done, next);
}

static int control(double seconds, const char *scoreboard, const char *trees) {
  uint64_t rewrites = 0;
  for (const double deadline = now() + seconds; now() < deadline; rewrites++) {
    point(scoreboard, trees, roll(UIDS), roll(8) == 0 ? BROKEN : (int)roll(2));
    usleep(roll(8) == 0 ? 50 : 4000);
  }
  for (int which = 0; which < UIDS; which++) point(scoreboard, trees, which, TREE_A);
  printf("rewrites %lu\n", (unsigned long)rewrites);
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  const int fd = open(argv[2], O_RDWR);
  histories = mmap(NULL, UIDS * sizeof(struct history), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (histories == MAP_FAILED) {
    perror(argv[2]);
    return 2;
  }
  const double seconds = atof(argv[3]);
  seed = strtoull(argv[4], NULL, 10) * 0x9E3779B97F4A7C15u | 1;
  for (int i = 0; i < 20; i++) roll(2);
  if (strcmp(argv[1], "control") == 0) return control(seconds, argv[5], argv[6]);
  prefix = argv[5];
  uid = atoi(argv[6]);
  return work(seconds);
}
