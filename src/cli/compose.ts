import { statSync } from 'node:fs';
import { join } from 'node:path';
import { createBuilder, type Builder } from '../builder/builder.ts';
import { createHealthcheck, type Healthcheck } from '../builder/healthcheck.ts';
import { ObuilderError } from '../errors.ts';
import { createDirectoryFetcher } from '../fetcher/directory-fetcher.ts';
import { createRedirectedHome } from '../sandbox/home-placement.ts';
import type { HostSystem } from '../sandbox/host-system.ts';
import { createLinuxSystem } from '../sandbox/linux-system.ts';
import { createMacosSystem } from '../sandbox/macos-system.ts';
import { createMountedPrefix, type MountedPrefix } from '../sandbox/mounted-prefix.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import { createUserSandbox } from '../sandbox/user-sandbox.ts';
import { chooseCopier } from '../store/choose-copier.ts';
import { createDirectoryStore, type DirectoryStoreOptions } from '../store/directory-store.ts';
import { verifyStore, type StoreProblem } from '../store/store-verify.ts';
import type { Store } from '../store/store.ts';
import type { HostOptions, StoreOptions } from './host-options.ts';
import { programArgv } from './program.ts';

/** Where people live: a stranger's spec must not copy a home from there. */
const HOME_DIRECTORIES = new Set(['/Users', '/home']);

export interface BuildHost {
  readonly builder: Builder;
  readonly store: Store;
  readonly sandbox: Sandbox;
  readonly healthcheck: Healthcheck;
  /** Waits for running steps, then gives everything back: the mount, the users, the store. */
  close(): Promise<void>;
}

/** The one place that chooses implementations. Nothing is mounted or made before a step needs it. */
export async function composeBuildHost(
  options: HostOptions,
  storeUse: Pick<DirectoryStoreOptions, 'sync' | 'autoPrune' | 'copying'> = {},
): Promise<BuildHost> {
  const copier = await chooseCopier(options.store);
  const store = await createDirectoryStore({ root: options.store.directory, copier, ...storeUse });
  const { uids, homePath, prefix, prefixMode, stateDir, limits } = options;
  const system = hostSystemOf(options);
  const mountedPrefix = mountedFor({ ...options, system }, prefix, 'local');
  // Without namespaces one path cannot be the home of several, unless it is redirected as the prefix is.
  const mountedHome =
    !system.hasNamespaces && uids.length > 1 ? mountedFor({ ...options, system }, homePath, '') : undefined;
  const sandbox = createUserSandbox({
    system,
    uids,
    homePath,
    prefix,
    prefixMode,
    prefixView: mountedPrefix,
    home: mountedHome && createRedirectedHome(homePath, mountedHome),
    stateDir: join(stateDir, 'sandbox'),
    limits,
  });
  const fetcher = createDirectoryFetcher({
    baseDirectory: options.baseDir,
    markedOnly: HOME_DIRECTORIES.has(options.baseDir),
    copier,
  });
  const host = { store, sandbox, fetcher };
  const builder = createBuilder(host);
  return {
    builder,
    store,
    sandbox,
    healthcheck: createHealthcheck(host),
    async close() {
      await builder.idle();
      await sandbox.close();
      await mountedHome?.close();
      await mountedPrefix.close();
      store.close();
    },
  };
}

function mountedFor(
  { scoreboard, stateDir, system }: HostOptions & { readonly system: HostSystem },
  prefix: string,
  subdirectory: string,
): MountedPrefix {
  const program = programArgv();
  return createMountedPrefix({
    ...{ prefix, subdirectory, scoreboard, stateDir, program },
    endProcesses: (uids) => endProcessesOfAll(uids, system),
  });
}

/** The system that this machine has. */
export function hostSystemOf(options: Pick<HostOptions, 'homePath' | 'sandboxExec'>): HostSystem {
  return process.platform === 'darwin' ? createMacosSystem(options) : createLinuxSystem(options);
}

/**
 * The store alone, for who runs no steps.
 * @throws {ObuilderError} STORE_MISSING: a mistyped path must not become a new store.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  return await createDirectoryStore(await existingStore(options));
}

/** What is wrong with a store; store/store-verify.ts says more. @throws {ObuilderError} STORE_MISSING */
export async function verifyStoreOf(
  options: StoreOptions,
  request: { readonly dryRun: boolean },
): Promise<readonly StoreProblem[]> {
  return await verifyStore(await existingStore(options), request);
}

async function existingStore(options: StoreOptions): Promise<DirectoryStoreOptions> {
  checkStoreExists(options);
  return { root: options.directory, copier: await chooseCopier(options) };
}

/** @throws {ObuilderError} STORE_MISSING */
export function checkStoreExists({ directory }: StoreOptions): void {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new ObuilderError('STORE_MISSING', `${directory}: there is no store`, {
      hint: 'name one with --store=auto:DIR; the first build makes it',
    });
  }
}

/** All at once: each may take a while, and the mount that they wait for is gone. */
async function endProcessesOfAll(uids: readonly number[], system: HostSystem): Promise<void> {
  const ends = await Promise.allSettled(uids.map((uid) => system.endProcessesOf(uid)));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}
