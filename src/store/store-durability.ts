import { open } from 'node:fs/promises';
import type { TreeCopier } from './tree-copier.ts';

/**
 * What a store makes sure of before it goes on, so that a power failure loses nothing that it said was saved. docs/store.md tells
 * the order. A store without sync leaves it all to the operating system.
 */
export interface StoreDurability {
  /** Everything below `directory`. */
  tree(directory: string): Promise<void>;
  /** The names in `directory`. */
  names(directory: string): Promise<void>;
}

export function durabilityOf(copier: TreeCopier, sync: boolean): StoreDurability {
  if (!sync) return { tree: () => Promise.resolve(), names: () => Promise.resolve() };
  return { tree: (directory) => copier.settle(directory), names: syncDirectory };
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
