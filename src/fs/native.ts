import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ObuilderError } from '../errors.ts';

/** What the addon offers. Failed system calls throw Error {code, errno, syscall, path}. */
export interface NativeAddon {
  /** Whether the lock was taken (flock LOCK_NB). */
  flockTry(fd: number, exclusive: boolean): boolean;
  /** Resolves once the lock is held; waits on a thread of its own. */
  flockWait(fd: number, exclusive: boolean): Promise<void>;
}

let loaded: NativeAddon | undefined;

/** The addon, from prebuilds/ or a build of this machine. Works from src/ and from dist/. */
export function native(): NativeAddon {
  if (loaded !== undefined) return loaded;
  const require = createRequire(import.meta.url);
  const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  try {
    const load = require('node-gyp-build') as (root: string) => NativeAddon;
    loaded = load(process.env['OBUILDER_FS_PREBUILD'] ?? packageRoot);
  } catch (cause) {
    throw new ObuilderError(
      'ADDON_MISSING',
      `the native addon does not load: ${(cause as Error).message.split('\n')[0] ?? ''}`,
      {
        hint: `build it with "npm run build:native" in ${packageRoot} (it needs cmake, a C++20 compiler and libfuse3-dev)`,
        cause,
      },
    );
  }
  return loaded;
}
