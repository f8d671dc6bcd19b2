import { basename } from 'node:path';
import { runCommand } from '../os/exec.ts';
import type { StoreLayout } from './store-layout.ts';
import type { StoreUsage } from './store.ts';

/** What `du` says. Builds may go on meanwhile: what vanishes while it is measured does not count. */
export async function measureUsage(layout: StoreLayout): Promise<StoreUsage> {
  const sizes = await sizesBelow(layout.root);
  return {
    results: childrenOf(sizes, layout.results),
    caches: childrenOf(sizes, layout.caches),
    totalBytes: sizes.get(layout.root) ?? 0,
  };
}

/** Bytes of a directory and of what lies one and two levels below it, by path. */
async function sizesBelow(directory: string): Promise<Map<string, number>> {
  // 1: something vanished; its line is missing, the others count.
  const { stdout } = await runCommand(['du', '-k', '-d', '2', directory], { okCodes: [0, 1] });
  const lines = stdout.split('\n').map((line) => /^(\d+)\s+(.*)$/.exec(line));
  return new Map(lines.flatMap((line) => (line === null ? [] : [[line[2] ?? '', Number(line[1]) * 1024]])));
}

function childrenOf(sizes: ReadonlyMap<string, number>, directory: string): Map<string, number> {
  const below = [...sizes].filter(([path]) => path.startsWith(`${directory}/`));
  return new Map(below.map(([path, bytes]) => [basename(path), bytes]));
}
