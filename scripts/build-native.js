// Builds the addon with cmake-js from native/CMakeLists.txt and puts the .node where node-gyp-build looks for it.
//   node scripts/build-native.js [--debug] [--sanitize] [--output DIR]
// One output directory per configuration, none inside build/, which node-gyp deletes.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: {
    debug: { type: 'boolean', default: false },
    sanitize: { type: 'boolean', default: false },
    output: { type: 'string' },
  },
});

const isDebug = values.debug || values.sanitize;
const name = values.sanitize ? 'build-asan' : isDebug ? 'build-debug' : 'build-release';
const work = join(root, name);
const output = resolve(values.output ?? (isDebug ? join(work, 'build', 'Release') : join(root, 'build', 'Release')));

const require = createRequire(import.meta.url);
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
// Its include_dir is relative to the working directory.
const addonApi = dirname(require.resolve('node-addon-api/package.json'));
const environment = { ...process.env };
delete environment.MAKEFLAGS; // a make that called us would lend its job server to cmake's

const result = spawnSync(
  process.execPath,
  [
    cmakeJs,
    'build',
    '--directory',
    join(root, 'native'),
    '--out',
    work,
    isDebug ? '--debug' : '--config=Release',
    `--CDNODE_ADDON_API_DIR=${addonApi}`,
    `--CDOBFS_SANITIZE=${values.sanitize ? 'ON' : 'OFF'}`,
    '--log-level=warn',
  ],
  { stdio: ['ignore', 'inherit', 'inherit'], env: environment, cwd: join(root, 'native') },
);
if (result.status !== 0) {
  console.error('obuilder-fs: the native addon did not build; it needs cmake, a C++20 compiler, pkg-config and libfuse3-dev');
  process.exit(1);
}
mkdirSync(output, { recursive: true });
const built = join(work, isDebug ? 'Debug' : 'Release', 'obuilder_fs.node');
// Replaced by rename: a running process keeps the one it has mapped.
copyFileSync(built, join(output, '.obuilder_fs.node.new'));
renameSync(join(output, '.obuilder_fs.node.new'), join(output, 'obuilder_fs.node'));
