#pragma once

#include <cstdint>
#include <random>
#include <string>

/**
 * Random operations, each done to files and to a model in memory, which must agree after it. Equal seeds make equal runs. They
 * throw Failure, with the number of the operation.
 */
namespace posix {

/** Reads, writes, mappings, truncations, holes and copies of one file, through several descriptors. */
void run_data_model(const std::string& folder, uint32_t seed, long operations);

/** Files, directories, links and symbolic links made, moved, changed, listed and removed in an empty folder. */
void run_name_model(const std::string& folder, uint32_t seed, long operations);

/** Numbers below a bound, the same on every machine. */
class Dice {
 public:
  explicit Dice(uint32_t seed) : engine_(seed) {}
  size_t below(size_t bound) { return engine_() % bound; }

 private:
  std::mt19937 engine_;
};

}  // namespace posix
