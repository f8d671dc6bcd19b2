import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { native, type TreeUsage } from '../fs/native.ts';
import { runCommand } from '../os/exec.ts';
import { failedTreeId, type StoreLayout } from './store-layout.ts';
import type { StoreUsage } from './store.ts';

/** Reads every directory. Builds may go on meanwhile: what vanishes while it is measured does not count. */
export async function measureUsage(layout: StoreLayout): Promise<StoreUsage> {
  const results = await treesIn(layout.results);
  const caches = await treesIn(layout.caches);
  const failed = await treesIn(layout.resultsTmp, failedTreeId);
  return {
    results: mapped(results, ({ bytes }) => bytes),
    sharedByResults: mapped(results, ({ sharedBytes }) => sharedBytes),
    caches: mapped(caches, ({ bytes }) => bytes),
    failed: mapped(failed, ({ bytes }) => bytes),
    totalBytes: await bytesBelow(layout.root),
  };
}

/** What each directory in `directory` takes, by what `keyOf` makes of its name, if anything. Each may be a file system of its own. */
async function treesIn(
  directory: string,
  keyOf: (name: string) => string | undefined = (name) => name,
): Promise<Map<string, TreeUsage>> {
  const entries = await readdir(directory, { withFileTypes: true });
  const sizes = new Map<string, TreeUsage>();
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const key = keyOf(name);
    const size = key === undefined ? undefined : await usageOf(join(directory, name));
    if (key !== undefined && size !== undefined) sizes.set(key, size);
  }
  return sizes;
}

async function usageOf(path: string): Promise<TreeUsage | undefined> {
  try {
    return await native().measureTree(path);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function bytesBelow(directory: string): Promise<number> {
  // 1: something vanished; the others count.
  const { stdout } = await runCommand(['du', '-k', '-s', directory], { okCodes: [0, 1] });
  return Number(/^\d+/.exec(stdout)?.[0] ?? 0) * 1024;
}

function mapped<V, W>(map: ReadonlyMap<string, V>, change: (value: V) => W): Map<string, W> {
  return new Map([...map].map(([key, value]) => [key, change(value)]));
}
