import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { ObuilderError } from '../../../src/errors.ts';
import { runCommand } from '../../../src/os/exec.ts';
import { isMounted, unmountNow, type Scratch } from '../scratch.ts';
import type { Contender } from './contender.ts';
import { asCaller } from './plain-contenders.ts';

const EXAMPLES = '/usr/share/doc/libfuse3-dev/examples';
const LONG_S = 86_400;
const MOUNT_DEADLINE_MS = 10_000;

interface Peer {
  readonly name: string;
  readonly description: string;
  /** Makes sure that the program is there, and answers its path. */
  find(scratch: Scratch): Promise<string>;
  /** Arguments with which it serves `source` at `point` in the foreground. */
  serve(source: string, point: string): string[];
}

const bindfsTimeouts = (timeout: number) =>
  `entry_timeout=${timeout},attr_timeout=${timeout},negative_timeout=${timeout}`;

const mergerfsTimeouts = (timeout: number) =>
  `cache.entry=${timeout},cache.attr=${timeout},cache.negative_entry=${timeout}`;

/** Each with the caches that its documentation offers, and without; pages may be kept in both, as with ours. */
const peers: readonly Peer[] = [
  {
    name: 'bindfs',
    description: 'bindfs, caches on',
    find: () => installed('bindfs'),
    serve: (source, point) => ['-f', '-o', `kernel_cache,${bindfsTimeouts(LONG_S)}`, source, point],
  },
  {
    name: 'bindfs-off',
    description: 'bindfs, caches off',
    find: () => installed('bindfs'),
    serve: (source, point) => ['-f', '-o', bindfsTimeouts(0), source, point],
  },
  {
    name: 'mergerfs',
    description: 'mergerfs, caches on',
    find: () => installed('mergerfs'),
    serve: (source, point) => [
      '-f',
      '-o',
      `allow_other,use_ino,cache.files=auto-full,cache.symlinks=true,cache.readdir=true,${mergerfsTimeouts(LONG_S)}`,
      source,
      point,
    ],
  },
  {
    name: 'mergerfs-off',
    description: 'mergerfs, caches off',
    find: () => installed('mergerfs'),
    serve: (source, point) => [
      '-f',
      '-o',
      `allow_other,use_ino,cache.files=partial,${mergerfsTimeouts(0)}`,
      source,
      point,
    ],
  },
  ...['passthrough', 'passthrough_fh'].flatMap((example): Peer[] => [
    {
      name: example,
      description: `libfuse's ${example}, caches on`,
      find: (scratch) => compiled(scratch, example, withLongTimeouts),
      serve: serveSubdirectory('kernel_cache'),
    },
    {
      name: `${example}-off`,
      description: `libfuse's ${example}, caches off`,
      find: (scratch) => compiled(scratch, example),
      serve: serveSubdirectory(),
    },
  ]),
  ...[
    { name: 'passthrough_ll', state: 'on', options: `cache=always,timeout=${LONG_S}` },
    { name: 'passthrough_ll-off', state: 'off', options: 'cache=auto,timeout=0' },
  ].map(({ name, state, options }): Peer => ({
    name,
    description: `libfuse's passthrough_ll, caches ${state}`,
    find: (scratch) => compiled(scratch, 'passthrough_ll'),
    serve: (source, point) => ['-f', '-o', `allow_other,source=${source},${options}`, point],
  })),
  {
    name: 'one-file',
    description: 'the cheapest round trip: a FUSE file system of one file',
    find: (scratch) => compileProgram(scratch, 'one-file', ownSource('one_file.c')),
    serve: (_, point) => ['-f', '-o', 'allow_other', point],
  },
];

export const peerContenders: readonly Contender[] = peers.map((peer) => ({
  name: peer.name,
  kind: 'peer',
  description: peer.description,
  async open(data) {
    const program = await peer.find(data.scratch);
    const point = data.scratch.make(`mounts/${peer.name}`);
    const { pid, ended } = await serve([program, ...peer.serve(data.directory(0), point)], point);
    return {
      root: () => point,
      command: asCaller,
      pid,
      async close() {
        unmountNow(point);
        await ended;
      },
    };
  },
}));

/** These serve the whole machine by themselves; a module of libfuse's makes it one directory. */
function serveSubdirectory(...options: string[]): Peer['serve'] {
  return (source, point) => [
    '-f',
    '-o',
    ['allow_other', ...options, 'modules=subdir', `subdir=${source}`].join(','),
    point,
  ];
}

/** The program of a Debian package of its name, which is installed where it is missing. */
async function installed(name: string): Promise<string> {
  const path = join('/usr/bin', name);
  if (!existsSync(path)) await runCommand(['apt-get', 'install', '--yes', '--no-install-recommends', name]);
  return path;
}

/** The examples forbid caching in their source. */
function withLongTimeouts(source: string): string {
  return source.replaceAll(/(cfg->(?:entry|attr|negative)_timeout) = 0;/g, `$1 = ${LONG_S};`);
}

async function compiled(
  scratch: Scratch,
  example: string,
  edit = (source: string) => source,
): Promise<string> {
  const source = edit(readExample(example));
  return compileProgram(scratch, edit === withLongTimeouts ? `${example}-caching` : example, source);
}

function readExample(example: string): string {
  const path = join(EXAMPLES, `${example}.c`);
  if (existsSync(path)) return readFileSync(path, 'utf8');
  if (existsSync(`${path}.gz`)) return gunzipSync(readFileSync(`${path}.gz`)).toString();
  throw new ObuilderError('CONTENDER_MISSING', `${path}: no such example`, {
    hint: 'install libfuse3-dev with its documentation',
  });
}

function ownSource(name: string): string {
  return readFileSync(fileURLToPath(new URL(name, import.meta.url)), 'utf8');
}

async function compileProgram(scratch: Scratch, name: string, text: string): Promise<string> {
  const program = join(scratch.make('bin'), name);
  if (existsSync(program)) return program;
  const source = `${program}.c`;
  writeFileSync(source, text);
  const { stdout } = await runCommand(['pkg-config', '--cflags', '--libs', 'fuse3']);
  const flags = stdout.trim().split(/\s+/);
  await runCommand(['gcc', '-O2', '-w', '-I', EXAMPLES, source, '-o', program, ...flags]);
  return program;
}

/** With as many descriptors as the host allows: passthrough_ll keeps one for each file that the kernel knows. */
const WITH_DESCRIPTORS = ['/bin/sh', '-c', 'ulimit -n 1048576 2>/dev/null; exec "$@"', 'peer'];

/** Starts a peer in the foreground and waits until it is mounted. */
async function serve(
  argv: readonly string[],
  point: string,
): Promise<{ pid: number; ended: Promise<unknown> }> {
  const [sh = '', ...shArguments] = WITH_DESCRIPTORS;
  const child = spawn(sh, [...shArguments, ...argv], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true, // Ctrl-C is for the benchmark, which unmounts
  });
  const ended = once(child, 'exit');
  const lastWords = text(child.stderr);
  const deadline = Date.now() + MOUNT_DEADLINE_MS;
  while (!isMounted(point) && child.exitCode === null && Date.now() < deadline) await delay(5);
  if (isMounted(point) && child.pid !== undefined) return { pid: child.pid, ended };
  child.kill();
  await ended;
  const [reason = ''] = (await lastWords).trim().split('\n');
  throw new ObuilderError('CONTENDER_MISSING', `it does not mount: ${reason || argv.join(' ')}`, {
    hint: 'leave it out with --mounts, or mend what it says',
  });
}
