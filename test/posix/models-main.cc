// posix-models data|names FOLDER SEED OPERATIONS

#include <cstdio>
#include <cstdlib>

#include "models.h"
#include "suite.h"

int main(int argc, char** argv) {
  const std::string model = argc == 5 ? argv[1] : "";
  if (model != "data" && model != "names") {
    fprintf(stderr, "usage: posix-models data|names FOLDER SEED OPERATIONS\n");
    return 2;
  }
  const auto seed = static_cast<uint32_t>(strtoul(argv[3], nullptr, 10));
  const auto run = model == "data" ? posix::run_data_model : posix::run_name_model;
  try {
    umask(022);
    run(argv[2], seed, atol(argv[4]));
    posix::remove_below(argv[2]);
    return 0;
  } catch (const std::exception& failed) {
    fprintf(stderr, "posix-models: %s %s: %s\n", model.c_str(), argv[3], failed.what());
    return 1;
  }
}
