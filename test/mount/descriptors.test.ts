import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  anna,
  createScratchMount,
  mainProgram,
  runProgram,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const { files, descriptors, held } = isLong
  ? { files: 200_000, descriptors: 20_000, held: 5_000 }
  : { files: 20_000, descriptors: 2_000, held: 500 };
const directories = files / 1_000;
// The bound is 300 bytes; over few files, what threads and heaps take once weighs as much again.
const BYTES_PER_FILE_MAX = isLong ? 300 : 600;

/** Walks a folder and answers how many files it saw; every one must answer stat. */
const WALK = `
let seen = 0;
const walk = (directory) => {
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    const path = directory + '/' + entry.name;
    fs.statSync(path);
    if (entry.isDirectory()) walk(path); else seen++;
  }
};
walk(args[0]);
return seen;`;

const HOLD = `
globalThis.kept = [];
for (let i = 0; i < args[1]; i++) globalThis.kept.push(fs.openSync(args[0] + '/' + (i % args[2]) + '/' + i, 'r+'));
return globalThis.kept.length;`;

const UNLINK_AND_READ = `
const [folder, index, directories] = args;
const fd = globalThis.kept[index];
fs.unlinkSync(folder + '/' + (index % directories) + '/' + index);
fs.writeSync(fd, 'kept', 0);
const text = Buffer.alloc(9);
return text.toString('utf8', 0, fs.readSync(fd, text, 0, 9, 0)) + fs.fstatSync(fd).nlink;`;

const LET_GO = `for (const fd of globalThis.kept) fs.closeSync(fd); globalThis.kept = [];`;

describe.skipIf(whyNoMounts !== undefined)(
  `${files} files through a mount process with ${descriptors} descriptors`,
  () => {
    let scratch: ScratchMount;
    let caller: CallerProcess;
    let folder: string;

    beforeEach(() => {
      scratch = createScratchMount();
      makeFiles(scratch.path('anna/local/many'));
      folder = join(scratch.prefix, 'many');
      caller = startCaller(anna);
    });
    afterEach(() => {
      caller.close();
      scratch.close();
    });

    it.each(['handles', 'paths'])(
      `--backing=%s: no EMFILE, under ${BYTES_PER_FILE_MAX} bytes a known file, and forgetting gives them back`,
      async (backing) => {
        mountWithLimit(scratch, backing);
        const pid = scratch.servingPid();
        // Threads and their arenas cost once, not for each file.
        const warmedUp = (await caller.call(WALK, join(folder, '0'))) as number;
        const before = residentBytes(pid);

        expect(await caller.call(WALK, folder)).toBe(files);
        const bytesPerFile = (residentBytes(pid) - before) / (files - warmedUp);
        console.log(
          `--backing=${backing}: ${bytesPerFile.toFixed(0)} bytes for each of ${knownNodes(scratch)} known files`,
        );
        expect(knownNodes(scratch)).toBeGreaterThan(files);
        expect(bytesPerFile).toBeLessThan(BYTES_PER_FILE_MAX);

        expect(await caller.call(HOLD, folder, held, directories)).toBe(held);
        expect(await caller.call(WALK, folder)).toBe(files);
        for (const index of [0, 7, held - 1]) {
          expect(await caller.call(UNLINK_AND_READ, folder, index, directories)).toBe('kept0');
        }
        await caller.call(LET_GO);

        if (!dropKernelCaches()) return;
        await waitUntil(() => knownNodes(scratch) < files / 2);
      },
      600_000,
    );

    it('--backing=descriptors: EMFILE or ENFILE at its limit, and it works again once files are let go of', async () => {
      mountWithLimit(scratch, 'descriptors');
      // Held open: what nobody uses, the kernel would forget when a walk fails.
      expect(['EMFILE', 'ENFILE']).toContain(await caller.attempt(HOLD, folder, descriptors, directories));
      await caller.call(LET_GO);
      if (!dropKernelCaches()) return;
      await waitUntil(() => knownNodes(scratch) < descriptors / 2);
      expect(await caller.attempt(HOLD, folder, held / 2, directories)).toBe(held / 2);
    });
  },
);

/** As anna's: files numbered, spread over the directories. */
function makeFiles(folder: string): void {
  mkdirSync(folder);
  for (let d = 0; d < directories; d++) mkdirSync(join(folder, String(d)));
  for (let i = 0; i < files; i++) writeFileSync(join(folder, String(i % directories), String(i)), '');
  runProgram(['chown', '-R', `${anna}:${anna}`, folder]);
  chmodSync(folder, 0o755);
}

function mountWithLimit(scratch: ScratchMount, backing: string): void {
  const limit = ['prlimit', `--nofile=${descriptors}:${descriptors}`, '--'];
  const mount = [process.execPath, mainProgram, 'mount', scratch.prefix, '--daemon', `--backing=${backing}`];
  const places = [`--scoreboard=${scratch.scoreboard}`, `--state-dir=${scratch.stateDir}`];
  const answer = runProgram([...limit, ...mount, ...places]);
  if (answer.code !== 0) throw new Error(`mount failed: ${answer.stderr}`);
}

function residentBytes(pid: number): number {
  const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(found?.[1]) * 1024;
}

function knownNodes(scratch: ScratchMount): number {
  const status = JSON.parse(scratch.run(['status', '--json']).stdout) as {
    mounts: { entries: { uid: string; counters?: { cachedNodes: number } }[] }[];
  };
  const entries = status.mounts.flatMap((mount) => mount.entries);
  const counters = entries.find(({ uid }) => uid === String(anna))?.counters;
  if (counters === undefined) throw new Error('status counts nothing for the caller');
  return counters.cachedNodes;
}

/** Asks the kernel to let go of files that nobody uses; false where that is not permitted. */
function dropKernelCaches(): boolean {
  return runProgram(['sh', '-c', 'sync; echo 2 > /proc/sys/vm/drop_caches']).code === 0;
}

/** Each look takes its time: it asks the mount process. */
async function waitUntil(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error('it did not come to that within a minute');
    dropKernelCaches();
    await new Promise(setImmediate);
  }
}
