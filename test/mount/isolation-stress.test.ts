import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { setIoUring } from '../../scripts/bench/fs/io-uring.ts';
import {
  asUid,
  createScratchMount,
  runProgram,
  whyNoMounts,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** As isolation-worker.c has them. */
const uids = [7735, 7736, 7737, 7738] as const;
const unmapped = 7739;
const HISTORY_BYTES = uids.length * (8 + (1 << 16));
const PROCESSES_PER_UID = 2;

const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const SECONDS = isLong ? 300 : 10;
const configurations = isLong
  ? ['auto', 'none'].flatMap((cache) =>
      ['handles', 'paths'].flatMap((backing) =>
        [true, false].map((byIoUring) => ({ cache, backing, byIoUring })),
      ),
    )
  : [
      { cache: 'auto', backing: 'handles', byIoUring: false },
      { cache: 'none', backing: 'paths', byIoUring: true },
    ];

describe.skipIf(whyNoMounts !== undefined)('isolation under stress', () => {
  it.each(configurations)(
    'callers who share every name meet their own current tree alone, while links are rewritten: --cache=$cache --backing=$backing, io_uring: $byIoUring',
    async ({ cache, backing, byIoUring }) => {
      const seed = Number(process.env['OBUILDER_FS_SEED'] ?? Date.now() % 1_000_000);
      console.log(`isolation seed ${seed} (replay with OBUILDER_FS_SEED=${seed})`);
      const scratch = createScratchMount();
      try {
        const worker = buildWorker(scratch);
        makeTrees(scratch);
        const history = makeHistory(scratch);
        const ioUring = setIoUring(byIoUring);
        try {
          scratch.mount(`--cache=${cache}`, `--backing=${backing}`);
        } finally {
          ioUring.setBack();
        }
        const work = [...uids.flatMap((uid) => Array(PROCESSES_PER_UID).fill(uid) as number[]), unmapped];
        const said = await Promise.all([
          runWorker([
            ...[worker, 'control', history, String(SECONDS), String(seed)],
            ...[scratch.scoreboard, scratch.path('trees')],
          ]),
          ...work.map((uid, i) =>
            runWorker(
              asUid(uid, [
                ...[worker, 'work', history, String(SECONDS), String(seed + i + 1)],
                ...[scratch.prefix, String(uid)],
              ]),
            ),
          ),
        ]);
        expect(said.filter((line) => !/^(operations|rewrites) \d+\n$/.test(line))).toEqual([]);
        console.log(said.map((line) => line.trim()).join(', '));
        for (const line of said) expect(Number(line.split(' ')[1])).toBeGreaterThan(100);
        for (const token of tokens()) expect(foreignFiles(scratch, token)).toEqual([]);
      } finally {
        scratch.close();
      }
    },
    SECONDS * 1000 + 120_000,
  );
});

function buildWorker(scratch: ScratchMount): string {
  const source = fileURLToPath(new URL('isolation-worker.c', import.meta.url));
  const program = scratch.path('isolation-worker');
  expect(runProgram(['cc', '-O2', '-o', program, source])).toEqual({ code: 0, stdout: '', stderr: '' });
  return program;
}

function makeHistory(scratch: ScratchMount): string {
  const history = scratch.path('history');
  writeFileSync(history, '');
  truncateSync(history, HISTORY_BYTES);
  chmodSync(history, 0o666);
  return history;
}

function tokens(): string[] {
  return uids.flatMap((uid) => [`${uid}-a`, `${uid}-b`]);
}

function makeTrees(scratch: ScratchMount): void {
  mkdirSync(scratch.path('trees'));
  for (const token of tokens()) {
    const tree = scratch.path(join('trees', token, 'local'));
    mkdirSync(join(tree, 'lib'), { recursive: true });
    fillTree(tree, token, Number(token.split('-')[0]), token.endsWith('a') ? 0 : 1);
  }
  fillTree(scratch.prefix, 'covered', 0, 3);
  for (const uid of uids) scratch.point(uid, scratch.path(`trees/${uid}-a`));
}

/** What tells of everything in a tree whose it is; the time of `who` tells the state's number in isolation-worker.c. */
function fillTree(tree: string, token: string, uid: number, state: number): void {
  for (const [directory, mark] of [
    [tree, 'only'],
    [join(tree, 'lib'), 'in'],
  ] as const) {
    writeFileSync(join(directory, 'who'), token);
    symlinkSync(token, join(directory, 'self'));
    writeFileSync(join(directory, `${mark}-${token}`), token);
    const attribute = runProgram([
      'python3',
      '-c',
      'import os, sys; os.setxattr(sys.argv[1], b"user.tree", sys.argv[2].encode())',
      join(directory, 'who'),
      token,
    ]);
    expect(attribute.code, attribute.stderr).toBe(0);
    for (const name of ['who', `${mark}-${token}`, '.']) chownSync(join(directory, name), uid, uid);
    lutimesSync(join(directory, 'who'), 1_000_000 + state, 1_000_000 + state);
  }
  if (state === 1) chmodSync(tree, 0o700);
}

/** Files of a tree that are not its own, as the backing file system has them. */
function foreignFiles(scratch: ScratchMount, token: string): string[] {
  const tree = scratch.path(join('trees', token, 'local'));
  const uid = Number(token.split('-')[0]);
  return readdirSync(tree, { recursive: true, encoding: 'utf8' })
    .map((name) => join(tree, name))
    .filter((path) => {
      const attr = lstatSync(path);
      const text = attr.isFile() ? readFileSync(path, 'utf8') : '';
      const isOwn = text === '' || text.startsWith('?') || text.startsWith(token);
      return !isOwn || (attr.uid !== uid && !path.endsWith('/self'));
    });
}

/** What it says; never rejects. */
function runWorker(argv: readonly string[]): Promise<string> {
  const [command = '', ...args] = argv;
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
  let said = '';
  child.stdout.on('data', (chunk) => (said += String(chunk)));
  child.stderr.on('data', (chunk) => (said += String(chunk)));
  return new Promise((resolve) =>
    child.on('close', (code, signal) =>
      resolve(code === 0 ? said : `${said}ended with ${code ?? signal ?? ''}`),
    ),
  );
}
