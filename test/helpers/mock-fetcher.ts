import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Fetcher, ImageEnv } from '../../src/fetcher/fetcher.ts';

export interface MockFetcher extends Fetcher {
  readonly fetched: string[];
}

/** The base image that the golden data was made with: bin/, etc/base with the image's name, tmp/, and `env`. */
export function createMockFetcher(env: ImageEnv): MockFetcher {
  const fetched: string[] = [];
  return {
    fetched,
    fetch(name, rootfs, output) {
      fetched.push(name);
      output(Buffer.from(`fetching ${name}\n`));
      for (const directory of ['bin', 'etc', 'tmp']) mkdirSync(join(rootfs, directory));
      writeFileSync(join(rootfs, 'etc/base'), `${name}\n`);
      return Promise.resolve(env);
    },
  };
}
