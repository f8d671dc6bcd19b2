import { defineConfig } from 'vitest/config';

/** Real mounts, real users, real disks and /usr/local. */
const oneAtATime = {
  fileParallelism: false,
  // Deadlines of real processes on a shared machine: a second try is told in the report, a third is not made.
  retry: process.env['CI'] === undefined ? 0 : 1,
  testTimeout: 120_000,
  hookTimeout: 120_000,
};

// A test's own deadline is a hang guard, never a measurement.
export default defineConfig({
  test: {
    pool: 'forks',
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/contracts/**/*.test.ts'],
          testTimeout: 60_000,
        },
      },
      { test: { name: 'mount', include: ['test/mount/**/*.test.ts'], ...oneAtATime } },
      {
        test: {
          name: 'build',
          include: ['test/build/**/*.test.ts', 'test/crash/**/*.test.ts'],
          ...oneAtATime,
        },
      },
    ],
  },
});
