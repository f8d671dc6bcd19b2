import { execFileSync } from 'node:child_process';
import { chownSync, cpSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ObuilderError } from '../../src/errors.ts';
import type { Store } from '../../src/store/store.ts';
import { escapeCacheName, isResultId } from '../../src/store/store-layout.ts';

/** The simplest store: directories below `root`, everything it knows about them in memory, one process. */
export function createMockStore(root: string): Store {
  const results = new Map<string, { base: string | undefined; used: number }>();
  const building = new Map<string, { base: string | undefined; ended: Promise<unknown> }>();
  const generations = new Map<string, number>();
  let clock = 0;
  let copies = 0;

  const pathOf = (id: string) => {
    if (!isResultId(id)) throw new ObuilderError('INVALID_ID', `${id}: no id`);
    return join(root, 'result', id);
  };
  const childrenOf = (id: string) =>
    [...results].filter(([, { base }]) => base === id).map(([child]) => child);
  const held = new Map<string, number>();
  const isBusy = (id: string) =>
    held.has(id) || building.has(id) || [...building.values()].some(({ base }) => base === id);
  const copyTree = (from: string, to: string) => {
    mkdirSync(to, { recursive: true });
    execFileSync('cp', ['-a', `${from}/.`, to]);
  };

  const use = (id: string): string | undefined => {
    const path = pathOf(id);
    const result = results.get(id);
    if (result === undefined) return undefined;
    result.used = Date.now() + clock++ / 1000;
    return path;
  };

  const make: Store['build'] = async ({ id, base }, fill) => {
    const tmp = join(root, 'result-tmp', id);
    try {
      mkdirSync(join(tmp, 'rootfs'), { recursive: true });
      if (base !== undefined) {
        if (!results.has(base)) throw new ObuilderError('BASE_GONE', `${base}: gone`);
        copyTree(join(pathOf(base), 'rootfs'), join(tmp, 'rootfs'));
        if (existsSync(join(pathOf(base), 'env'))) cpSync(join(pathOf(base), 'env'), join(tmp, 'env'));
      }
      const outcome = await fill(tmp);
      if (outcome.status !== 'ok') return outcome;
      mkdirSync(join(root, 'result'), { recursive: true });
      renameSync(tmp, pathOf(id));
      results.set(id, { base, used: Date.now() });
      return outcome;
    } finally {
      rmSync(tmp, { recursive: true, force: true });
    }
  };

  const removeOne = (id: string, removed: ((id: string) => void) | undefined) => {
    rmSync(pathOf(id), { recursive: true, force: true });
    if (results.delete(id)) removed?.(id);
  };

  return {
    // eslint-disable-next-line @typescript-eslint/require-await -- so that a bad id rejects
    use: async (id) => use(id),

    // eslint-disable-next-line @typescript-eslint/require-await -- so that a bad id rejects
    find: async (id) => (results.has(id) ? pathOf(id) : pathOf(id) && undefined),

    records: () =>
      [...results]
        .sort(([, a], [, b]) => a.used - b.used)
        .map(([id, { base, used }]) => ({
          id,
          parent: base,
          childCount: childrenOf(id).length,
          createdAt: new Date(used),
          usedAt: new Date(used),
        })),

    usage: () =>
      Promise.resolve({
        results: new Map(),
        sharedByResults: new Map(),
        caches: new Map(),
        failed: new Map(),
        totalBytes: 0,
      }),

    async build(request, fill, signal) {
      pathOf(request.id);
      if (building.has(request.id)) request.onWait?.('another process that is making this result');
      for (let other = building.get(request.id); other !== undefined; other = building.get(request.id)) {
        if (signal.aborted) return { status: 'cancelled' };
        await Promise.race([
          other.ended,
          new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true })),
        ]);
      }
      if (signal.aborted) return { status: 'cancelled' };
      if (use(request.id) !== undefined) return { status: 'loaded' };
      const outcome = Promise.resolve().then(() => make(request, fill, signal));
      const ended = outcome.then(
        () => building.delete(request.id),
        () => building.delete(request.id),
      );
      building.set(request.id, { base: request.base, ended });
      return await outcome;
    },

    openCache(name, owner) {
      const path = join(root, 'cache', escapeCacheName(name));
      const generation = generations.get(path) ?? 0;
      const directory = join(root, 'cache-tmp', `${copies++}-${basename(path)}`);
      mkdirSync(path, { recursive: true });
      copyTree(path, directory);
      if (owner !== undefined) chownSync(directory, owner.uid, owner.gid);
      return Promise.resolve({
        directory,
        release() {
          if ((generations.get(path) ?? 0) === generation && existsSync(directory)) {
            generations.set(path, generation + 1);
            rmSync(path, { recursive: true });
            renameSync(directory, path);
          }
          rmSync(directory, { recursive: true, force: true });
          return Promise.resolve();
        },
      });
    },

    async withCopy({ id }, look) {
      const trees = [pathOf(id), join(root, 'failed', id)];
      const tree = trees.find((path) => existsSync(path));
      if (tree === undefined) throw new ObuilderError('NO_SUCH_RESULT', `${id}: no such result`);
      const copy = join(root, 'result-tmp', `copy-${copies++}`);
      copyTree(tree, copy);
      try {
        return await look(copy);
      } finally {
        rmSync(copy, { recursive: true, force: true });
      }
    },

    keepFailed(id) {
      const kept = join(root, 'failed', id);
      rmSync(kept, { recursive: true, force: true });
      mkdirSync(join(root, 'failed'), { recursive: true });
      renameSync(join(root, 'result-tmp', id), kept);
      return Promise.resolve(kept);
    },

    async delete(id, removed) {
      pathOf(id);
      rmSync(join(root, 'failed', id), { recursive: true, force: true });
      for (const child of childrenOf(id)) await this.delete(child, removed);
      if (isBusy(id)) throw new ObuilderError('RESULT_BUSY', `${id}: busy`);
      removeOne(id, removed);
    },

    prune(before, limit, removed) {
      let count = 0;
      while (count < limit) {
        const [oldest] = [...results]
          .filter(([id, { used }]) => used < before.getTime() && childrenOf(id).length === 0 && !isBusy(id))
          .sort(([, a], [, b]) => a.used - b.used);
        if (oldest === undefined) break;
        removeOne(oldest[0], removed);
        count++;
      }
      return Promise.resolve(count);
    },

    space: () => Promise.resolve({ freeBytes: 2 ** 40, totalBytes: 2 ** 40 }),

    hold(id) {
      if (!results.has(id)) return Promise.resolve(undefined);
      held.set(id, (held.get(id) ?? 0) + 1);
      let isHeld = true;
      const release = () => {
        const count = held.get(id) ?? 0;
        if (isHeld && count > 1) held.set(id, count - 1);
        else if (isHeld) held.delete(id);
        isHeld = false;
      };
      return Promise.resolve({ release });
    },

    async makeRoom(freeBytes, before, removed) {
      return freeBytes > 2 ** 40 ? await this.prune(before, Infinity, removed) : 0;
    },

    prunable(before) {
      const left = new Map([...results].filter(([id]) => !isBusy(id)));
      const taken: string[] = [];
      for (;;) {
        const isParent = (id: string) =>
          [...results].some(([child, { base }]) => base === id && !taken.includes(child));
        const [oldest] = [...left]
          .filter(([id, { used }]) => used < before.getTime() && !isParent(id))
          .sort(([, a], [, b]) => a.used - b.used);
        if (oldest === undefined) return taken;
        taken.push(oldest[0]);
        left.delete(oldest[0]);
      }
    },

    async pause() {
      await Promise.all([...building.values()].map(({ ended }) => ended));
      return { sweep: () => Promise.resolve(0), resume: () => undefined };
    },

    close: () => undefined,
  };
}
