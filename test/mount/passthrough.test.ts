import { chmodSync, chownSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { settledCount } from '../helpers/request-count.ts';
import {
  anna,
  createScratchMount,
  mainProgram,
  runAs,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

const SMALL = 4096;
const LARGE = 1 << 20;

/** Small files are read through the kernel's own pages, large ones and those that are written without them: each beside the other. */
describe.skipIf(whyNoMounts !== undefined).each(['handles', 'paths'])(
  'files that the kernel reads and writes by itself, --backing=%s',
  (backing) => {
    let scratch: ScratchMount;
    let atRoot: CallerProcess;
    let inTree: CallerProcess;
    const lib = () => join(scratch.prefix, 'lib');
    const kept = (name: string) => scratch.path(`anna/local/lib/${name}`);

    beforeAll(() => {
      scratch = createScratchMount();
      scratch.mount(`--backing=${backing}`);
      atRoot = startCaller(anna);
      const exec = [
        process.execPath,
        mainProgram,
        'exec',
        `--state-dir=${scratch.stateDir}`,
        `--uid=${anna}`,
      ];
      inTree = startCaller(anna, (argv) => [...exec, '--prefix-mode=tree', scratch.prefix, '--', ...argv]);
    });
    afterAll(() => {
      for (const caller of [atRoot, inTree]) caller.close();
      scratch.close();
    });

    const write = (caller: CallerProcess, name: string, letter: string, size: number) =>
      caller.call(
        `const [file, letter, size] = args;
        const fd = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
        fs.writeSync(fd, letter.repeat(size), 0);
        fs.closeSync(fd)`,
        join(lib(), name),
        letter,
        size,
      );
    const read = (caller: CallerProcess, name: string) =>
      caller.call(
        'const text = fs.readFileSync(args[0], "latin1"); return [...new Set(text)].join("") + text.length',
        join(lib(), name),
      );

    it.each([SMALL, LARGE])(
      'a file of %i bytes that is written over in place is read as it is now',
      async (size) => {
        const name = `rewritten${size}`;
        for (let round = 0; round < 40; round++) {
          const letter = String.fromCharCode(97 + (round % 26));
          await write(round % 3 === 0 ? inTree : atRoot, name, letter, size);
          expect(await read(atRoot, name)).toBe(`${letter}${size}`);
          expect(await read(inTree, name)).toBe(`${letter}${size}`);
        }
      },
    );

    it.each([SMALL, LARGE])(
      'who has a file of %i bytes open sees what another writes to it',
      async (size) => {
        const name = `shared${size}`;
        await write(atRoot, name, 'a', size);
        const read =
          'const b = Buffer.alloc(1); fs.readSync(globalThis.file, b, 0, 1, 0); return b.toString()';
        await atRoot.call('globalThis.file = fs.openSync(args[0], "r")', join(lib(), name));
        expect(await atRoot.call(read)).toBe('a');
        const neighbour = startCaller(anna);
        await write(neighbour, name, 'b', size);
        expect(await atRoot.call(read)).toBe('b');
        neighbour.close();
        await atRoot.call('fs.closeSync(globalThis.file)');
      },
    );

    it('what is being written through one door is seen through the other while the file stays open', async () => {
      const path = join(lib(), 'growing');
      await inTree.call('globalThis.file = fs.openSync(args[0], "w")', path);
      for (let size = 1; size <= 5; size++) {
        await inTree.call('fs.writeSync(globalThis.file, "g")');
        expect(await atRoot.call('return fs.statSync(args[0]).size', path)).toBe(size);
      }
      expect(await read(atRoot, 'growing')).toBe('g5');
      await inTree.call('fs.closeSync(globalThis.file)');
      expect(statSync(kept('growing')).size).toBe(5);
    });

    it('reading and writing 8 MiB takes as many requests as reading and writing a byte', async () => {
      const requests = async (size: number) => {
        await write(inTree, `counted${size}`, 'c', size);
        await read(inTree, `counted${size}`);
        const before = await settledCount(scratch);
        await write(inTree, `counted${size}`, 'd', size);
        return (await settledCount(scratch)) - before;
      };
      expect(await requests(8 << 20)).toBe(await requests(1));
    });

    it('a file that was written through a mapping tells the time of it once it is closed', async () => {
      const before = '2001-01-01';
      const script = `import mmap, os, sys
path = sys.argv[1]
with open(path, 'w+b') as file:
  file.write(b'x' * 8192)
  file.flush()
  os.utime(path, (978307200, 978307200))
  mapped = mmap.mmap(file.fileno(), 8192)
  mapped[0:5] = b'hello'
  mapped.flush()
  mapped.close()`;
      expect(runAs(anna, ['/usr/bin/python3', '-c', script, join(lib(), 'mapped')]).stderr).toBe('');
      await settledCount(scratch);
      const seen = await atRoot.call('return fs.statSync(args[0]).mtimeMs', join(lib(), 'mapped'));
      expect(seen).toBe(statSync(kept('mapped')).mtimeMs);
      expect(seen).toBeGreaterThan(Date.parse(before));
      expect(readFileSync(kept('mapped'), 'latin1').slice(0, 6)).toBe('hellox');
    });

    it('whoever opens a set-id program for writing has its bits go, and sees them gone', async () => {
      const path = join(lib(), 'tool');
      writeFileSync(kept('tool'), 'x'.repeat(SMALL));
      chownSync(kept('tool'), anna, anna);
      chmodSync(kept('tool'), 0o6755);
      const mode = () => atRoot.call('return (fs.statSync(args[0]).mode & 0o7777).toString(8)', path);
      expect(await mode()).toBe('6755');
      await write(atRoot, 'tool', 'y', SMALL);
      expect(await mode()).toBe('755');
      expect(statSync(kept('tool')).mode & 0o7777).toBe(0o755);
    });
  },
);
