// posix-suite FOLDER [PATTERN]: runs the tests, each in a process of its own, and says how each ended.

#include <fnmatch.h>

#include <cstdio>

#include "suite.h"

namespace posix {

namespace {

struct Test {
  const char* name;
  void (*run)(const std::string& dir);
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

}  // namespace

Registration::Registration(const char* name, void (*run)(const std::string&)) { tests().push_back({name, run}); }

/** Answers whether the test passed. */
static bool run_test(const Test& test, const std::string& dir) {
  std::string failure;
  try {
    umask(022);
    Child(([&] { test.run(dir); })).join();
  } catch (const Failure& failed) {
    failure = failed.what();
  }
  try {
    remove_below(dir);
  } catch (const Failure& failed) {
    if (failure.empty()) failure = std::string("cleaning up: ") + failed.what();
  }
  printf("%s - %s\n", failure.empty() ? "ok" : "not ok", test.name);
  if (!failure.empty()) printf("# %s\n", failure.c_str());
  fflush(stdout);
  return failure.empty();
}

static int run_tests(const std::string& dir, const char* pattern) {
  if (geteuid() != 0 || !names_in(dir).empty()) {
    fprintf(stderr, "posix-suite: it takes root and an empty folder\n");
    return 2;
  }
  bool all_passed = true;
  for (const Test& test : tests()) {
    if (fnmatch(pattern, test.name, FNM_EXTMATCH) == 0) all_passed &= run_test(test, dir);
  }
  return all_passed ? 0 : 1;
}

}  // namespace posix

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (const posix::Test& test : posix::tests()) printf("%s\n", test.name);
    return 0;
  }
  if (argc != 2 && argc != 3) {
    fprintf(stderr, "usage: posix-suite --list | posix-suite FOLDER [PATTERN]\n");
    return 2;
  }
  try {
    return posix::run_tests(argv[1], argc == 3 ? argv[2] : "*");
  } catch (const std::exception& failed) {
    fprintf(stderr, "posix-suite: %s\n", failed.what());
    return 2;
  }
}
