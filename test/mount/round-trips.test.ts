import { chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { settledCount } from '../helpers/request-count.ts';
import {
  anna,
  createScratchMount,
  mainProgram,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/**
 * How many requests each call costs once everything is warm: `tree` at the tree root, `shared` at the shared root, `none` at a tree
 * root whose names are not cached. All paths are three names deep, so `none` asks at least three times for each.
 * What is written to while open may have its attributes asked for again, or not: it depends on how soon the close before is told.
 */
const REQUESTS = {
  'stat of a known path': { tree: 0, shared: 1, none: 3 },
  'stat of a missing name': { tree: 0, shared: 1, none: 3 },
  'stat through a link': { tree: 0, shared: 2, none: 6 },
  'open, read and close': { tree: 1, shared: 2, none: 5 },
  'reading a directory': { tree: 1, shared: 2, none: 5 },
  'create, write and close': { tree: 4, shared: 5, none: 6 },
  'open, ten writes and close': { tree: 3, shared: 4, none: 15 },
  rename: { tree: 3, shared: 5, none: 7 },
  unlink: { tree: 2, shared: 3, none: 4 },
} as const;

type Call = keyof typeof REQUESTS;

/** What a caller runs for call number `i` in `directory`. A call that makes something makes another thing each time. */
const BODIES: Record<Call, string> = {
  'stat of a known path': 'fs.statSync(`${directory}/f${i % 10}`)',
  'stat of a missing name': 'fs.statSync(`${directory}/missing${i % 10}`, { throwIfNoEntry: false })',
  'stat through a link': 'fs.statSync(`${directory}/link${i % 10}`)',
  'open, read and close': `
    const fd = fs.openSync(\`\${directory}/f\${i % 10}\`);
    fs.readSync(fd, buffer);
    fs.closeSync(fd)`,
  'reading a directory': 'fs.readdirSync(directory)',
  'create, write and close': `
    const fd = fs.openSync(\`\${directory}/made\${i}\`, 'wx');
    fs.writeSync(fd, buffer);
    fs.closeSync(fd)`,
  'open, ten writes and close': `
    const fd = fs.openSync(\`\${directory}/made0\`, 'r+');
    for (let count = 0; count < 10; count++) fs.writeSync(fd, buffer);
    fs.closeSync(fd)`,
  rename: 'fs.renameSync(`${directory}/made${i}`, `${directory}/renamed${i}`)',
  unlink: 'fs.unlinkSync(`${directory}/renamed${i}`)',
};

const WARM_UP = 20;
const COUNTED = 50;

const ways = [
  { way: 'tree', options: [], isTreeRoot: true },
  { way: 'shared', options: [], isTreeRoot: false },
  { way: 'none', options: ['--cache=none'], isTreeRoot: true },
] as const;

for (const backing of ['handles', 'paths']) {
  describe.skipIf(whyNoMounts !== undefined).each(ways)(
    `requests on backing ${backing}, %o`,
    ({ way, options, isTreeRoot }) => {
      let scratch: ScratchMount;
      let caller: CallerProcess;
      beforeAll(() => {
        scratch = createScratchMount();
        fillTree(scratch);
        scratch.mount(`--backing=${backing}`, ...options);
        caller = isTreeRoot ? startAtTreeRoot(scratch) : startCaller(anna);
      });
      afterAll(() => {
        caller.close();
        scratch.close();
      });

      // In this order: what is created is renamed, then unlinked.
      it.each(Object.keys(REQUESTS) as Call[])('%s', async (call) => {
        const directory = join(scratch.prefix, 'lib/deep');
        await repeat(caller, call, { directory, from: 0, to: WARM_UP });
        const before = await settledCount(scratch);
        await repeat(caller, call, { directory, from: WARM_UP, to: WARM_UP + COUNTED });
        const requests = (await settledCount(scratch)) - before;
        const most = REQUESTS[call][way];
        expect(requests / COUNTED).toBeLessThanOrEqual(most);
        expect(requests / COUNTED).toBeGreaterThanOrEqual(isExact(call, way) ? most : most - 1);
      });
    },
  );
}

function isExact(call: Call, way: (typeof ways)[number]['way']): boolean {
  return call !== 'open, ten writes and close' || way === 'none';
}

function fillTree(scratch: ScratchMount): void {
  const deep = scratch.path('anna/local/lib/deep');
  mkdirSync(deep);
  for (let number = 0; number < 10; number++) {
    writeFileSync(join(deep, `f${number}`), 'x'.repeat(4096));
    symlinkSync(`../../lib/deep/f${number}`, join(deep, `link${number}`));
  }
  chownSync(deep, anna, anna);
}

function startAtTreeRoot(scratch: ScratchMount): CallerProcess {
  const exec = [process.execPath, mainProgram, 'exec', `--state-dir=${scratch.stateDir}`, `--uid=${anna}`];
  return startCaller(anna, (argv) => [...exec, '--prefix-mode=tree', scratch.prefix, '--', ...argv]);
}

async function repeat(
  caller: CallerProcess,
  call: Call,
  range: { directory: string; from: number; to: number },
): Promise<void> {
  const loop = `
    const [directory, from, to] = args, buffer = Buffer.alloc(4096);
    for (let i = from; i < to; i++) { ${BODIES[call]}; }`;
  await caller.call(loop, range.directory, range.from, range.to);
}
