import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  anna,
  bert,
  callers,
  carl,
  createScratchMount,
  dora,
  runAs,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** Turns at the shared root; without cached names each costs more, and shows less. */
const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const roundsOf = (cache: string) => (isLong ? 10_000 : cache === 'auto' ? 2_000 : 500);

describe.skipIf(whyNoMounts !== undefined).each(['auto', 'none'])(
  'callers of one mount, --cache=%s',
  (cache) => {
    const rounds = roundsOf(cache);
    let scratch: ScratchMount;
    const by = new Map<number, CallerProcess>();
    const caller = (uid: number): CallerProcess => {
      const found = by.get(uid);
      if (found === undefined) throw new Error(`no caller ${uid}`);
      return found;
    };

    beforeAll(() => {
      scratch = createScratchMount();
      scratch.mount(`--cache=${cache}`);
      for (const uid of callers) by.set(uid, startCaller(uid));
    });

    afterAll(() => {
      for (const process of by.values()) process.close();
      scratch.close();
    });

    const TURN = `
    const [prefix, round] = args;
    const who = fs.readFileSync(prefix + '/who', 'utf8');
    const names = fs.readdirSync(prefix).sort().join();
    let wrote = '';
    try {
      fs.writeFileSync(prefix + '/lib/mine', who + round);
      wrote = fs.readFileSync(prefix + '/lib/mine', 'utf8');
    } catch (error) { wrote = error.code; }
    return [who, names, wrote];`;

    it(`${rounds} turns at the same paths: each its own content, the unmapped the covered directory's, the broken EACCES`, async () => {
      for (let round = 0; round < rounds; round++) {
        const [a, b, c, d] = await Promise.all(
          round % 2 === 0
            ? // In turn: each meets what the kernel remembers of the one before. At once: they race.
              [
                await caller(anna).attempt(TURN, scratch.prefix, round),
                await caller(bert).attempt(TURN, scratch.prefix, round),
                await caller(carl).attempt(TURN, scratch.prefix, round),
                await caller(dora).attempt(TURN, scratch.prefix, round),
              ]
            : callers.map((uid) => caller(uid).attempt(TURN, scratch.prefix, round)),
        );
        expect([a, b, c, d]).toEqual([
          ['anna', 'lib,who', `anna${round}`],
          ['bert', 'lib,who', `bert${round}`],
          ['covered', 'lib,who', 'EACCES'],
          'EACCES',
        ]);
      }
      expect(readFileSync(scratch.path('anna/local/lib/mine'), 'utf8')).toBe(`anna${rounds - 1}`);
      expect(readFileSync(scratch.path('bert/local/lib/mine'), 'utf8')).toBe(`bert${rounds - 1}`);
    }, 600_000);

    it('a rewritten link changes the next path walk, without an unmount, and an open file keeps the old content', async () => {
      mkdirSync(scratch.path('second/local'), { recursive: true });
      writeFileSync(scratch.path('second/local/who'), 'second');
      const read = `return fs.readFileSync(args[0] + '/who', 'utf8')`;
      await caller(anna).call(`globalThis.kept = fs.openSync(args[0] + '/who')`, scratch.prefix);
      expect(await caller(anna).call(read, scratch.prefix)).toBe('anna');
      scratch.point(anna, scratch.path('second'));
      expect(await caller(anna).call(read, scratch.prefix)).toBe('second');
      expect(await caller(anna).call(`return fs.readdirSync(args[0])`, scratch.prefix)).toEqual(['who']);
      const kept = `const text = Buffer.alloc(9); return text.toString('utf8', 0, fs.readSync(globalThis.kept, text, 0, 9, 0))`;
      expect(await caller(anna).call(kept)).toBe('anna');
      expect(await caller(bert).call(read, scratch.prefix)).toBe('bert');
      scratch.point(anna, scratch.path('anna'));
      expect(await caller(anna).call(read, scratch.prefix)).toBe('anna');
    });

    it('what was changed around the mount is seen after a new link to the same directory', async () => {
      const list = `return fs.readdirSync(args[0] + '/lib').includes('around')`;
      const exists = `return fs.existsSync(args[0] + '/lib/around')`;
      expect(await caller(bert).call(exists, scratch.prefix)).toBe(false);
      writeFileSync(scratch.path('bert/local/lib/around'), '');
      scratch.point(bert, scratch.path('bert'));
      expect(await caller(bert).call(exists, scratch.prefix)).toBe(true);
      expect(await caller(bert).call(list, scratch.prefix)).toBe(true);
    });

    it('a link to nowhere, a file, a relative path or a tree that went away is EACCES, never the covered directory', async () => {
      const read = `return fs.readFileSync(args[0] + '/who', 'utf8')`;
      for (const target of ['/nowhere', scratch.path('anna/local/who'), '../anna', '/etc/passwd']) {
        scratch.point(dora, target);
        expect(await caller(dora).attempt(read, scratch.prefix)).toBe('EACCES');
        expect(await caller(dora).attempt(`return fs.readdirSync(args[0])`, scratch.prefix)).toBe('EACCES');
      }
      scratch.point(dora, scratch.makeTree(`dora-${cache}`, dora));
      expect(await caller(dora).attempt(read, scratch.prefix)).toBe(`dora-${cache}`);
      renameSync(scratch.path(`dora-${cache}/local`), scratch.path(`dora-${cache}/elsewhere`));
      expect(await caller(dora).attempt(read, scratch.prefix)).toBe('EACCES');
    });

    it('exec shows a uid its own tree, in both prefix modes', () => {
      for (const mode of ['tree', 'shared']) {
        expect(execProgram(scratch, bert, mode, ['cat', join(scratch.prefix, 'who')]).stdout).toBe('bert');
        expect(execProgram(scratch, carl, mode, ['cat', join(scratch.prefix, 'who')]).stdout).toBe('covered');
        expect(execProgram(scratch, bert, mode, ['sh', '-c', 'exit 7']).code).toBe(7);
      }
      expect(execProgram(scratch, bert, 'tree', ['stat', '-c', '%u', scratch.prefix]).stdout.trim()).toBe(
        String(bert),
      );
    });

    it('what one door changes the other shows at its next walk', () => {
      const file = join(scratch.prefix, 'lib/door');
      expect(execProgram(scratch, bert, 'shared', ['test', '-e', file]).code).toBe(1);
      expect(
        execProgram(scratch, bert, 'tree', ['sh', '-c', `test ! -e ${file} && echo made > ${file}`]).code,
      ).toBe(0);
      expect(execProgram(scratch, bert, 'shared', ['cat', file]).stdout).toBe('made\n');
      expect(execProgram(scratch, bert, 'shared', ['rm', file]).code).toBe(0);
      expect(execProgram(scratch, bert, 'tree', ['test', '-e', file]).code).toBe(1);
    });

    it('the hidden doors are in no listing, and nobody but root gets below them', () => {
      const doors = doorsPath(scratch);
      expect(runAs(bert, ['ls', '-a', scratch.prefix]).stdout).not.toContain('.obuilder-fs.');
      expect(runAs(bert, ['ls', doors]).code).not.toBe(0);
      expect(runAs(bert, ['ls', join(doors, `${anna}.${anna}.x`)]).stderr).toContain('Permission denied');
      expect(runAs(bert, ['rmdir', doors]).code).not.toBe(0);
    });
  },
);

function execProgram(scratch: ScratchMount, uid: number, mode: string, command: string[]) {
  return scratch.run(['exec', `--uid=${uid}`, `--prefix-mode=${mode}`, scratch.prefix, '--', ...command]);
}

function doorsPath(scratch: ScratchMount): string {
  const [record] = readRecords(scratch);
  return join(scratch.prefix, record ?? '');
}

function readRecords(scratch: ScratchMount): string[] {
  const run = join(scratch.stateDir, 'run');
  const file = runAs(0, ['sh', '-c', `cat ${run}/*.json`]).stdout;
  return [(JSON.parse(file) as { doorsName: string }).doorsName];
}
