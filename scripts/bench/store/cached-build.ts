import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createBuilder } from '../../../src/builder/builder.ts';
import { ObuilderError } from '../../../src/errors.ts';
import type { Fetcher } from '../../../src/fetcher/fetcher.ts';
import type { Sandbox } from '../../../src/sandbox/sandbox.ts';
import { parseSpec } from '../../../src/spec/parse-spec.ts';
import { createDirectoryStore } from '../../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../../src/store/rsync-copier.ts';

export interface CachedBuild {
  /** Opens the store, builds a spec whose results are all there, and closes it. */
  build(): Promise<void>;
}

/** Saves the results of that many runs in a store at `root`. Its trees are tiny: a build that finds results reads none. */
export async function prepareCachedBuild(
  root: string,
  runs: number,
  signal: AbortSignal,
): Promise<CachedBuild> {
  const source = `((from base) ${Array.from({ length: runs }, (_, i) => `(run (shell "step ${i}"))`).join(' ')})`;
  const build = async (expected: 'saved' | 'loaded') => {
    const store = await createDirectoryStore({ root, copier: createRsyncCopier() });
    try {
      const builder = createBuilder({ store, fetcher, sandbox });
      const request = { sourceDirectory: root, secrets: new Map(), emit: () => undefined, signal };
      const result = await builder.build(parseSpec(source), request);
      signal.throwIfAborted();
      if (result.status === expected) return;
      throw new ObuilderError('BUILD_FAILED', `not ${expected}: ${JSON.stringify(result)}`);
    } finally {
      store.close();
    }
  };
  await build('saved');
  return { build: () => build('loaded') };
}

const fetcher: Fetcher = {
  async fetch(name, rootfs) {
    await writeFile(join(rootfs, 'name'), name);
    return [];
  },
};

/** Runs nothing: what a cached build takes does not depend on what its steps once did. */
const sandbox: Sandbox = {
  locate: ({ path }) => join('/', path),
  inTree: (located) => located.slice(1),
  adopt: () => Promise.resolve(),
  async run({ argv }, rootfs) {
    await writeFile(join(rootfs, 'command'), argv.join(' '));
    return { status: 'ok' };
  },
  close: () => Promise.resolve(),
};
