import { join } from 'node:path';
import { createBuilder, type Builder } from '../builder/builder.ts';
import { ObuilderError } from '../errors.ts';
import { createDirectoryFetcher } from '../fetcher/directory-fetcher.ts';
import { createLinuxBuildUsers } from '../sandbox/build-users-linux.ts';
import { createMacosBuildUsers } from '../sandbox/build-users-macos.ts';
import { createMountedPrefix } from '../sandbox/mounted-prefix.ts';
import type { PrefixMode } from '../sandbox/prefix-view.ts';
import { endProcessesOf } from '../sandbox/processes.ts';
import { createUserSandbox } from '../sandbox/user-sandbox.ts';
import { createDirectoryStore } from '../store/directory-store.ts';
import { createRsyncCopier } from '../store/rsync-copier.ts';
import { programArgv } from './program.ts';

/** Where people live: a stranger's spec must not copy a home from there. */
const HOME_DIRECTORIES = new Set(['/Users', '/home']);

export interface BuildHostOptions {
  readonly stateDir: string;
  /** `rsync:DIR` */
  readonly store: string;
  readonly uid: number;
  readonly homePath: string;
  readonly prefix: string;
  readonly prefixMode: PrefixMode;
  readonly scoreboard: string;
  readonly baseDir: string;
}

export interface BuildHost {
  readonly builder: Builder;
  /** Waits for running steps, then gives everything back: the mount, the users, the store. */
  close(): Promise<void>;
}

/** The one place that chooses implementations. Nothing is mounted or made before a step needs it. */
export async function composeBuildHost(options: BuildHostOptions): Promise<BuildHost> {
  const copier = createRsyncCopier();
  const store = await createDirectoryStore({ root: storeDirectory(options.store), copier });
  const { uid, homePath, prefix, prefixMode, scoreboard, stateDir } = options;
  const mountedPrefix = createMountedPrefix({
    prefix,
    subdirectory: 'local',
    scoreboard,
    stateDir,
    program: programArgv(),
    endProcesses: async (uids) => {
      for (const mapped of uids) await endProcessesOf(mapped);
    },
  });
  const users =
    process.platform === 'darwin' ? createMacosBuildUsers({ homePath }) : createLinuxBuildUsers({ homePath });
  const sandbox = createUserSandbox({
    users,
    uid,
    homePath,
    prefix,
    prefixMode,
    prefixView: mountedPrefix,
    stateDir: join(stateDir, 'sandbox'),
  });
  const fetcher = createDirectoryFetcher({
    baseDirectory: options.baseDir,
    markedOnly: HOME_DIRECTORIES.has(options.baseDir),
    copier,
  });
  const builder = createBuilder({ store, sandbox, fetcher });
  return {
    builder,
    async close() {
      await builder.idle();
      await sandbox.close();
      await mountedPrefix.close();
      store.close();
    },
  };
}

function storeDirectory(store: string): string {
  const [, kind, directory] = /^([a-z]+):(.+)$/.exec(store) ?? [];
  if (kind === 'rsync' && directory !== undefined) return directory;
  throw new ObuilderError('BAD_OPTION', `--store=${store}: no such store`, { hint: 'give rsync:DIR' });
}
