import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type * as Library from '../../src/index.ts';
import { tryLockFile, type FileLock } from '../../src/fs/file-lock.ts';
import { processesOf } from './scratch-build.ts';
import { makeScratchDirectory, mountsBelow, removeScratch } from './scratch-mount.ts';
import { removeTestUsers } from './test-users.ts';

/** Build users of the pool tests' own; results belong to the first. */
export const poolUids = [7770, 7771, 7772, 7773, 7774, 7775, 7776, 7777] as const;

/** The package by its own name, as another package has it: it starts its mounts from dist. */
const packageName = 'obuilder-fs';

/** One build of a test: how it ended, and what it said. */
export interface PoolBuild {
  readonly result: Library.BuildResult;
  /** The id of its result; throws what went wrong where there is none. */
  readonly id: string;
  readonly output: string;
  readonly notes: readonly string[];
}

/** A state directory, a base image, a prefix and a home path of a test's own, for builds by several users in one process. */
export interface ScratchPool {
  readonly directory: string;
  readonly prefix: string;
  readonly homePath: string;
  path(name: string): string;
  open(options?: Library.BuilderOptions): Promise<Library.EmbeddedBuilder>;
  /** Keeps a build user from being claimed, as another process that runs a step does. */
  hold(uid: number): FileLock;
  /** The tree of a result. */
  rootfs(id: string): string;
  /** What builds left: mounts, scoreboard entries, unfinished results, cache copies, files, processes. */
  leftovers(): string[];
  close(): Promise<void>;
}

export async function createScratchPool(): Promise<ScratchPool> {
  await removeTestUsers(poolUids);
  const library = (await import(packageName)) as typeof Library;
  const directory = makeScratchDirectory();
  const path = (name: string) => join(directory, name);
  const [prefix, homePath, stateDir] = [path('prefix'), path('home'), path('state')];
  for (const made of ['prefix', 'context', 'state/images/base/local/bin', 'state/scoreboard'])
    mkdirSync(path(made), { recursive: true });
  mkdirSync(path('state/sandbox'), { mode: 0o700 }); // as the first step makes it
  writeFileSync(path('prefix/host'), 'host');
  writeFileSync(path('context/hello.txt'), 'hello\n');
  writeFileSync(path('state/images/base/.obuilder_profile.sh'), `export PATH=${prefix}/bin:$PATH\n`);
  return {
    directory,
    prefix,
    homePath,
    path,
    open: (options = {}) =>
      library.createBuilder({ stateDir, prefix, homePath, uid: poolUids[0], builders: 2, ...options }),
    hold(uid) {
      const lock = tryLockFile(path(`state/sandbox/uid-${uid}.lock`), 'exclusive');
      if (lock === undefined) throw new Error(`${uid} is busy`);
      return lock;
    },
    rootfs: (id) => path(`state/store/result/${id}/rootfs`),
    leftovers: () => [
      ...mountsBelow(directory).map((mount) => `mount ${mount}`),
      ...['state/scoreboard', 'state/store/result-tmp', 'state/store/cache-tmp', 'home'].flatMap((name) =>
        list(path(name)).map((entry) => `${name}/${entry}`),
      ),
      ...list(path('state/sandbox')).filter((name) => /^(tmp|output)-/.test(name)),
      ...poolUids.flatMap((uid) => processesOf(uid)).map((pid) => `process ${pid}`),
    ],
    async close() {
      await removeTestUsers(poolUids);
      removeScratch(directory);
    },
  };
}

/** Runs a build to its end. */
export async function runBuild(
  builder: Library.EmbeddedBuilder,
  spec: string,
  options: Library.BuildOptions & { readonly onOutput?: (output: string) => void },
): Promise<PoolBuild> {
  const build = builder.build(spec, options);
  let output = '';
  const notes: string[] = [];
  for await (const event of build) {
    if (event.type === 'note') notes.push(event.text);
    if (event.type !== 'output') continue;
    output += Buffer.from(event.data).toString();
    options.onOutput?.(output);
  }
  const result = await build.result;
  return {
    result,
    get id() {
      if (result.status === 'saved' || result.status === 'loaded') return result.id;
      throw new Error(`${JSON.stringify(result)}\n${output}`);
    },
    output,
    notes,
  };
}

/** The process that serves the prefix. */
export function servingPid(scratch: ScratchPool): number {
  const records = list(scratch.path('state/run')).filter((name) => name.endsWith('.json'));
  const [record = ''] = records.map((name) => readFileSync(scratch.path(`state/run/${name}`), 'utf8'));
  return (JSON.parse(record) as { pid: number }).pid;
}

export function run(script: string): string {
  return `(run (shell ${JSON.stringify(script)}))`;
}

export function specOf(...ops: string[]): string {
  return `((from base) ${ops.join('\n')})`;
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
