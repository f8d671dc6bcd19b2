import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StepOutcome } from '../../src/sandbox/sandbox.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { verifyStore } from '../../src/store/store-verify.ts';
import type { Store } from '../../src/store/store.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';

const failed: StepOutcome = { status: 'failed', message: 'no' };
const later = () => new Date(Date.now() + 1000);

describe('the tree of a failed step', () => {
  let root: string;
  let store: Store;

  beforeEach(async () => {
    root = mkdtempSync(join(tmpdir(), 'store-'));
    store = await open();
    await store.build({ id: idOf('base'), base: undefined }, writing({ base: 'base' }), never);
  });
  afterEach(() => {
    store.close();
    rmSync(root, { recursive: true, force: true });
  });

  const open = () => createDirectoryStore({ root, copier: createRsyncCopier() });

  async function keep(name: string, content = name): Promise<string> {
    let kept: string | undefined;
    const fill = async (directory: string) => {
      writeFileSync(join(directory, 'rootfs', 'file'), content);
      kept = await store.keepFailed(idOf(name));
      return failed;
    };
    expect(await store.build({ id: idOf(name), base: idOf('base') }, fill, never)).toEqual(failed);
    return kept ?? '';
  }

  /** What a copy of it holds. */
  async function look(name: string): Promise<string[]> {
    let seen: string[] = [];
    await store.withCopy(
      { id: idOf(name) },
      (directory) => {
        const rootfs = join(directory, 'rootfs');
        seen = readdirSync(rootfs).map((file) => readFileSync(join(rootfs, file), 'utf8'));
        for (const file of readdirSync(rootfs)) rmSync(join(rootfs, file));
        return Promise.resolve({ status: 'ok' });
      },
      never,
    );
    return seen;
  }

  it('is no result when it is kept: nothing finds it or builds from it, and its step runs again', async () => {
    await keep('step');
    expect(store.records().map(({ id }) => id)).toEqual([idOf('base')]);
    expect(await store.use(idOf('step'))).toBeUndefined();
    expect(await store.hold(idOf('step'))).toBeUndefined();
    const onTop = store.build({ id: idOf('top'), base: idOf('step') }, writing({}), never);
    await expect(onTop).rejects.toMatchObject({ code: 'BASE_GONE' });
    await keep('step', 'second try');
    expect(await look('step')).toEqual(['base', 'second try']);
  });

  it('is looked at in copies, of which nothing is left', async () => {
    await keep('step');
    expect(await look('step')).toEqual(['base', 'step']);
    expect(await look('step')).toEqual(['base', 'step']);
    expect(await look('base')).toEqual(['base']);
    expect(readdirSync(join(root, 'result-tmp'))).toHaveLength(1);
    await expect(look('none')).rejects.toMatchObject({ code: 'NO_SUCH_RESULT' });
  });

  it('stays when the store is opened, swept and verified', async () => {
    const kept = await keep('step');
    store.close();
    store = await open();
    const paused = await store.pause(() => undefined, never);
    expect(await paused?.sweep()).toBe(0);
    paused?.resume();
    expect(await verifyStore({ root, copier: createRsyncCopier() }, { dryRun: false })).toEqual([]);
    expect(existsSync(kept)).toBe(true);
  });

  it('goes when its step has succeeded', async () => {
    const kept = await keep('step');
    await store.build({ id: idOf('step'), base: idOf('base') }, writing({ file: 'made' }), never);
    expect(existsSync(kept)).toBe(false);
    expect(await look('step')).toEqual(['base', 'made']);
  });

  it('goes before any result when room is made, the longest kept first, and with delete', async () => {
    const names = ['1', '2', '3'];
    for (const name of names) await keep(name);
    const usage = await store.usage();
    expect([...usage.failed.keys()].sort()).toEqual(names.map(idOf).sort());
    expect([...usage.results.keys()]).toEqual([idOf('base')]);
    const removed: string[] = [];
    await store.delete(idOf('2'), (id) => removed.push(id));
    expect(removed).toEqual([idOf('2')]);
    const order = ['1', '3', 'base'].map(idOf);
    expect(store.prunable(new Date(0))).toEqual([]);
    expect(store.prunable(later())).toEqual(order);
    expect(await store.prune(later(), 1)).toBe(1);
    expect(store.prunable(later())).toEqual(order.slice(1));
    expect(await store.makeRoom(Infinity, later())).toBe(2);
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
  });

  it('makes room for later ones: eight are kept', async () => {
    const kept = [];
    for (let i = 0; i < 10; i++) kept.push(await keep(`step ${i}`));
    expect(kept.map((one) => existsSync(one))).toEqual(kept.map((_, i) => i >= 2));
  });

  it('is neither replaced nor removed while somebody looks at it, no more than a result', async () => {
    await keep('step');
    await store.withCopy(
      { id: idOf('step') },
      async () => {
        expect(await keep('step', 'second try')).toBe('');
        await expect(store.delete(idOf('step'))).rejects.toMatchObject({ code: 'RESULT_BUSY' });
        await store.prune(later(), Infinity, (id) => expect(id).toBe(idOf('base')));
        return { status: 'ok' };
      },
      never,
    );
    expect(await look('step')).toEqual(['base', 'step']);
    await store.build({ id: idOf('result'), base: undefined }, writing({}), never);
    await store.withCopy(
      { id: idOf('result') },
      async () => {
        await expect(store.delete(idOf('result'))).rejects.toMatchObject({ code: 'RESULT_BUSY' });
        return { status: 'ok' };
      },
      never,
    );
  });
});
