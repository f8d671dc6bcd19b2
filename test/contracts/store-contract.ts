import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StepOutcome } from '../../src/sandbox/sandbox.ts';
import type { Store } from '../../src/store/store.ts';

/** The id that stands for `name` in these tests. */
export function idOf(name: string): string {
  return createHash('sha256').update(name).digest('hex');
}

export const never = new AbortController().signal;

/** A step that leaves `files` (path in the rootfs → content) and succeeds. */
export function writing(files: Record<string, string>): (directory: string) => Promise<StepOutcome> {
  return (directory) => {
    for (const [path, content] of Object.entries(files))
      writeFileSync(join(directory, 'rootfs', path), content);
    return Promise.resolve({ status: 'ok' });
  };
}

/** A promise and the function that fulfils it. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

/** What every store promises; `open` makes one in an empty directory, below `place` when it is asked for one. */
export function storeContract(
  name: string,
  open: (root: string) => Promise<Store>,
  place: () => string = tmpdir,
): void {
  describe(`store contract: ${name}`, () => {
    let root: string;
    let store: Store;

    beforeEach(async () => {
      root = mkdtempSync(join(place(), 'store-'));
      store = await open(join(root, 'store'));
    });

    afterEach(() => {
      store.close();
      rmSync(root, { recursive: true, force: true });
    });

    async function save(id: string, base?: string, files: Record<string, string> = {}): Promise<string> {
      const outcome = await store.build({ id: idOf(id), base: base && idOf(base) }, writing(files), never);
      expect(outcome.status).toBe('ok');
      return await directoryOf(id);
    }

    async function directoryOf(id: string): Promise<string> {
      const directory = await store.use(idOf(id));
      if (directory === undefined) throw new Error(`result ${id} is not there`);
      return directory;
    }

    describe('results', () => {
      it('answers undefined for a result that was never made', async () => {
        expect(await store.use(idOf('nothing'))).toBeUndefined();
      });

      it.each(['', '..', '../../etc', 'x', 'A'.repeat(64), `${idOf('x')}/..`])(
        'refuses %j, which is no id',
        async (id) => {
          await expect(store.use(id)).rejects.toMatchObject({ code: 'INVALID_ID' });
          await expect(store.delete(id)).rejects.toMatchObject({ code: 'INVALID_ID' });
          await expect(store.build({ id, base: undefined }, writing({}), never)).rejects.toMatchObject({
            code: 'INVALID_ID',
          });
        },
      );

      it('keeps what the step left in rootfs and in its log', async () => {
        const request = { id: idOf('a'), base: undefined };
        await store.build(
          request,
          async (directory) => {
            writeFileSync(join(directory, 'log'), 'said\n');
            return await writing({ file: 'content' })(directory);
          },
          never,
        );
        const directory = await directoryOf('a');
        expect(readFileSync(join(directory, 'rootfs/file'), 'utf8')).toBe('content');
        expect(readFileSync(join(directory, 'log'), 'utf8')).toBe('said\n');
        expect(statSync(join(directory, 'rootfs')).mode & 0o7777).toBe(0o755);
      });

      it("starts from a copy of the base's tree and env, without its log", async () => {
        await store.build(
          { id: idOf('base'), base: undefined },
          async (directory) => {
            writeFileSync(join(directory, 'env'), '((env ()))');
            writeFileSync(join(directory, 'log'), 'base log');
            return await writing({ old: 'old' })(directory);
          },
          never,
        );
        await store.build(
          { id: idOf('child'), base: idOf('base') },
          (directory) => {
            expect(readdirSync(directory).sort()).toEqual(['env', 'rootfs']);
            expect(readFileSync(join(directory, 'rootfs/old'), 'utf8')).toBe('old');
            writeFileSync(join(directory, 'rootfs/old'), 'changed');
            return Promise.resolve({ status: 'ok' });
          },
          never,
        );
        expect(readFileSync(join(await directoryOf('base'), 'rootfs/old'), 'utf8')).toBe('old');
        expect(readFileSync(join(await directoryOf('child'), 'rootfs/old'), 'utf8')).toBe('changed');
        expect(readFileSync(join(await directoryOf('child'), 'env'), 'utf8')).toBe('((env ()))');
      });

      it('copies links, modes, times and owners as they are, and follows no link out', async () => {
        const outside = join(root, 'outside');
        writeFileSync(outside, 'outside');
        await store.build(
          { id: idOf('base'), base: undefined },
          (directory) => {
            const at = (path: string) => join(directory, 'rootfs', path);
            writeFileSync(at('file'), 'x');
            linkSync(at('file'), at('hard'));
            symlinkSync(outside, at('out'));
            symlinkSync('missing', at('dangling'));
            mkdirSync(at('dir'));
            chmodSync(at('dir'), 0o1711);
            if (process.getuid?.() === 0) chownSync(at('file'), 705, 706);
            chmodSync(at('file'), 0o4640);
            utimesSync(at('file'), 1000, 2000);
            return Promise.resolve({ status: 'ok' });
          },
          never,
        );
        await save('child', 'base');
        const at = async (path: string) => join(await directoryOf('child'), 'rootfs', path);
        const file = lstatSync(await at('file'));
        expect([file.mode & 0o7777, file.mtimeMs]).toEqual([0o4640, 2_000_000]);
        expect(lstatSync(await at('hard')).ino).toBe(file.ino);
        if (process.getuid?.() === 0) expect([file.uid, file.gid]).toEqual([705, 706]);
        expect(lstatSync(await at('dir')).mode & 0o7777).toBe(0o1711);
        expect(readlinkSync(await at('out'))).toBe(outside);
        expect(readlinkSync(await at('dangling'))).toBe('missing');
        await store.delete(idOf('base'));
        expect(readFileSync(outside, 'utf8')).toBe('outside');
      });

      it('shows nothing of a result before its step has succeeded', async () => {
        await store.build(
          { id: idOf('a'), base: undefined },
          async () => {
            expect(await store.use(idOf('a'))).toBeUndefined();
            return { status: 'ok' };
          },
          never,
        );
        expect(await store.use(idOf('a'))).toBeDefined();
      });

      it.each([{ status: 'failed', message: 'no' }, { status: 'cancelled' }] as const)(
        'records nothing of a step that ended $status, and the next try starts clean',
        async (outcome) => {
          const request = { id: idOf('a'), base: undefined };
          const answer = await store.build(
            request,
            async (directory) => {
              await writing({ left: 'over' })(directory);
              return outcome;
            },
            never,
          );
          expect(answer).toEqual(outcome);
          expect(await store.use(idOf('a'))).toBeUndefined();
          const seen: string[] = [];
          await store.build(
            request,
            (directory) => {
              seen.push(...readdirSync(join(directory, 'rootfs')));
              return Promise.resolve({ status: 'ok' });
            },
            never,
          );
          expect(seen).toEqual([]);
        },
      );

      it('passes on what the step throws and records nothing', async () => {
        const request = { id: idOf('a'), base: undefined };
        const broken = () => Promise.reject(new Error('broken host'));
        await expect(store.build(request, broken, never)).rejects.toThrow('broken host');
        expect(await store.use(idOf('a'))).toBeUndefined();
      });

      it('refuses to build from a result that is not there', async () => {
        await expect(
          store.build({ id: idOf('a'), base: idOf('gone') }, writing({}), never),
        ).rejects.toMatchObject({ code: 'BASE_GONE' });
      });

      it('runs the step of an id once when two builds want it at the same time', async () => {
        const [started, finish] = [gate(), gate()];
        const request = { id: idOf('a'), base: undefined };
        const first = store.build(
          request,
          async () => {
            started.open();
            await finish.opened;
            return { status: 'ok' };
          },
          never,
        );
        await started.opened;
        const second = store.build(request, () => Promise.reject(new Error('ran twice')), never);
        finish.open();
        expect(await first).toEqual({ status: 'ok' });
        expect(await second).toEqual({ status: 'loaded' });
      });

      it('tells a build that must wait, and only that', async () => {
        const { opened, open } = gate();
        const first = store.build(
          { id: idOf('a'), base: undefined, onWait: () => expect.fail('waited') },
          async (directory) => {
            await opened;
            return await writing({})(directory);
          },
          never,
        );
        const waited = gate();
        const second = store.build(
          { id: idOf('a'), base: undefined, onWait: waited.open },
          () => Promise.reject(new Error('ran twice')),
          never,
        );
        await waited.opened;
        open();
        expect([(await first).status, (await second).status]).toEqual(['ok', 'loaded']);
      });

      it('lets a cancelled build stop waiting for another that makes the same result', async () => {
        const [started, finish] = [gate(), gate()];
        const request = { id: idOf('a'), base: undefined };
        const first = store.build(
          request,
          async () => {
            started.open();
            await finish.opened;
            return { status: 'failed', message: 'no' };
          },
          never,
        );
        await started.opened;
        const cancel = new AbortController();
        const second = store.build(request, () => Promise.reject(new Error('ran')), cancel.signal);
        cancel.abort();
        expect(await second).toEqual({ status: 'cancelled' });
        finish.open();
        await first;
        expect((await store.build(request, writing({}), never)).status).toBe('ok');
      });

      it('does not start a build that is cancelled already', async () => {
        await save('base');
        const ran = () => Promise.reject(new Error('ran'));
        const outcome = await store.build({ id: idOf('a'), base: idOf('base') }, ran, AbortSignal.abort());
        expect(outcome).toEqual({ status: 'cancelled' });
      });
    });

    describe('delete and prune', () => {
      it('deletes what was made from a result before the result', async () => {
        await save('a');
        await save('b', 'a');
        await save('c', 'b');
        await save('d', 'a');
        const removed: string[] = [];
        await store.delete(idOf('a'), (id) => removed.push(id));
        expect(removed).toHaveLength(4);
        expect(removed.indexOf(idOf('c'))).toBeLessThan(removed.indexOf(idOf('b')));
        expect(removed.at(-1)).toBe(idOf('a'));
        for (const id of ['a', 'b', 'c', 'd']) expect(await store.use(idOf(id))).toBeUndefined();
      });

      it('is content when there is nothing to delete', async () => {
        const removed: string[] = [];
        await store.delete(idOf('nothing'), (id) => removed.push(id));
        expect(removed).toEqual([]);
      });

      it('refuses to delete the base of a running build, which then succeeds', async () => {
        await save('base');
        await store.build(
          { id: idOf('child'), base: idOf('base') },
          async () => {
            await expect(store.delete(idOf('base'))).rejects.toMatchObject({ code: 'RESULT_BUSY' });
            expect(await store.prune(tomorrow(), 10)).toBe(0);
            return { status: 'ok' };
          },
          never,
        );
        expect(await store.use(idOf('child'))).toBeDefined();
      });

      it('prunes only results without children, up to the limit, then those that became so', async () => {
        await save('a');
        await save('b', 'a');
        await save('c', 'b');
        const removed: string[] = [];
        expect(await store.prune(tomorrow(), 2, (id) => removed.push(id))).toBe(2);
        expect(removed).toEqual([idOf('c'), idOf('b')]);
        expect(await store.use(idOf('a'))).toBeDefined();
      });

      it('records who was made from whom', async () => {
        expect(store.records()).toEqual([]);
        await save('base');
        await save('one', 'base');
        await save('two', 'base');
        const records = store.records().map(({ id, parent, childCount }) => [id, parent, childCount]);
        expect(new Set(records)).toEqual(
          new Set([
            [idOf('base'), undefined, 2],
            [idOf('one'), idOf('base'), 0],
            [idOf('two'), idOf('base'), 0],
          ]),
        );
      });

      it('finds a result without using it', async () => {
        const directory = await save('a');
        const before = store.records();
        expect(await store.find(idOf('a'))).toBe(directory);
        expect(await store.find(idOf('b'))).toBeUndefined();
        expect(store.records()).toEqual(before);
      });

      it('tells what it would prune, in the order in which it then does', async () => {
        for (const [name, base] of [['a'], ['b', 'a'], ['c', 'b'], ['d', 'a'], ['e']] as const)
          await save(name, base);
        const told = store.prunable(tomorrow());
        const removed: string[] = [];
        await store.prune(tomorrow(), Infinity, (id) => removed.push(id));
        expect(told).toHaveLength(5);
        expect([...told].sort()).toEqual([...removed].sort());
        expect(told.indexOf(idOf('c'))).toBeLessThan(told.indexOf(idOf('b')));
        expect(told.at(-1) === idOf('a') || told.indexOf(idOf('a')) > told.indexOf(idOf('d'))).toBe(true);
        expect(store.prunable(tomorrow())).toEqual([]);
      });

      it('keeps what somebody holds, and what that was made from, until it is released', async () => {
        await save('base');
        await save('held', 'base');
        await save('other', 'base');
        const hold = await store.hold(idOf('held'));
        expect(store.prunable(tomorrow())).toEqual([idOf('other')]);
        expect(await store.prune(tomorrow(), 10)).toBe(1);
        await expect(store.delete(idOf('base'))).rejects.toMatchObject({ code: 'RESULT_BUSY' });
        hold?.release();
        expect(await store.prune(tomorrow(), 10)).toBe(2);
      });

      it('holds nothing that is not there', async () => {
        expect(await store.hold(idOf('nothing'))).toBeUndefined();
      });

      it('makes no room where there is enough, and all that it can where there is not', async () => {
        await save('a');
        await save('b', 'a');
        const { freeBytes, totalBytes } = await store.space();
        expect(freeBytes).toBeLessThanOrEqual(totalBytes);
        expect(await store.makeRoom(0, tomorrow())).toBe(0);
        expect(await store.makeRoom(2 * totalBytes, tomorrow())).toBe(2);
      });

      it('prunes nothing that was used since', async () => {
        await save('a');
        expect(await store.prune(new Date(Date.now() - 60_000), 10)).toBe(0);
        expect(await store.use(idOf('a'))).toBeDefined();
      });
    });

    describe('a paused store', () => {
      it('waits for the steps that run, and lets none begin until it is resumed', async () => {
        const [started, finish] = [gate(), gate()];
        const running = store.build(
          { id: idOf('running'), base: undefined },
          async (directory) => {
            started.open();
            await finish.opened;
            return await writing({})(directory);
          },
          never,
        );
        await started.opened;
        const pausing = store.pause(() => finish.open(), never);
        finish.open();
        const paused = await pausing;
        expect((await running).status).toBe('ok');
        expect(await store.find(idOf('running'))).toBeDefined();
        expect(await paused?.sweep()).toBe(0);
        paused?.resume();
        await save('later');
      });
    });

    describe('caches', () => {
      async function change(cache: string, file: string, content: string): Promise<void> {
        const copy = await store.openCache(cache);
        writeFileSync(join(copy.directory, file), content);
        await copy.release();
      }

      async function contentOf(cache: string): Promise<Record<string, string>> {
        const copy = await store.openCache(cache);
        const files = readdirSync(copy.directory).map((file) => [
          file,
          readFileSync(join(copy.directory, file), 'utf8'),
        ]);
        await copy.release();
        return Object.fromEntries(files) as Record<string, string>;
      }

      it('begins empty and keeps what was released', async () => {
        expect(await contentOf('c')).toEqual({});
        await change('c', 'x', '1');
        await change('c', 'y', '2');
        expect(await contentOf('c')).toEqual({ x: '1', y: '2' });
      });

      it('gives each user a private copy; the first released wins and the other is deleted', async () => {
        const [one, two] = [await store.openCache('c'), await store.openCache('c')];
        expect(one.directory).not.toBe(two.directory);
        writeFileSync(join(one.directory, 'one'), '1');
        writeFileSync(join(two.directory, 'two'), '2');
        await two.release();
        await one.release();
        expect(existsSync(one.directory)).toBe(false);
        expect(existsSync(two.directory)).toBe(false);
        expect(await contentOf('c')).toEqual({ two: '2' });
      });

      it('keeps the first release even when its directory was itself replaced meanwhile', async () => {
        const stale = await store.openCache('c');
        await change('c', 'a', '1');
        await change('c', 'b', '2');
        await stale.release();
        expect(await contentOf('c')).toEqual({ a: '1', b: '2' });
      });

      it('may be released twice', async () => {
        const copy = await store.openCache('c');
        writeFileSync(join(copy.directory, 'x'), '1');
        await copy.release();
        await copy.release();
        expect(await contentOf('c')).toEqual({ x: '1' });
      });

      it('keeps caches apart whatever their names, inside the store', async () => {
        const names = ['x', 'X', '../x', '..', '.', '', 'a/b', 'a%2fb', '/etc', 'c-x', 'é', 'n'.repeat(300)];
        for (const [i, name] of names.entries()) await change(name, 'mine', String(i));
        for (const [i, name] of names.entries()) expect(await contentOf(name)).toEqual({ mine: String(i) });
        expect(readdirSync(root)).toEqual(['store']);
      });

      it.runIf(process.getuid?.() === 0)('gives the top directory to the owner asked for', async () => {
        await change('c', 'x', '1');
        const copy = await store.openCache('c', { uid: 705, gid: 706 });
        expect(statSync(copy.directory)).toMatchObject({ uid: 705, gid: 706 });
        expect(statSync(join(copy.directory, 'x'))).toMatchObject({ uid: 0, gid: 0 });
        await copy.release();
      });
    });
  });
}

function tomorrow(): Date {
  return new Date(Date.now() + 86_400_000);
}
