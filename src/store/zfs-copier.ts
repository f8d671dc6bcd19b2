import { chmod, lstat, rename } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand, type CommandOptions, type CommandResult } from '../os/exec.ts';
import { createDirectory, removeDirectory } from './plain-units.ts';
import { createRsyncCopier, fillByRsync } from './rsync-copier.ts';
import { setAsidePath } from './store-parts.ts';
import type { TreeCopier } from './tree-copier.ts';

export interface ZfsOptions {
  /** Where the pool's (or another dataset's) file system is mounted: the root of the store. */
  readonly mountPoint: string;
  /** Runs `zfs` and `zpool`: for tests on machines without them. */
  readonly run?: (argv: readonly string[], options?: CommandOptions) => Promise<CommandResult>;
}

/**
 * Results are datasets, as in OBuilder's zfs store, and a copy is a clone of the snapshot `snap` that every saved result has.
 * Caches are plain directories: replacing one must not wait until nobody has a file of it open, as renaming a dataset does.
 * Moves half results that OBuilder left, those without the snapshot, to where the store removes what is left of killed processes.
 * @throws {ObuilderError} STORE_KIND when no dataset is mounted there.
 */
export async function openZfsCopier({ mountPoint, run = runCommand }: ZfsOptions): Promise<TreeCopier> {
  const zfs = new Zfs(mountPoint, await datasetAt(mountPoint, run), run);
  await zfs.prepare();
  const plain = createRsyncCopier();
  return {
    create: (target) => (zfs.holds(target) ? zfs.create(target) : createDirectory(target)),
    copy: (source, target, signal) =>
      zfs.holds(target) ? zfs.clone(source, target, signal) : plain.copy(source, target, signal),
    fill: fillByRsync,
    settle: () => zfs.sync(),
    async move(from, to) {
      if (zfs.holds(from)) await zfs.move(from, to);
      else await moveDirectory(from, to);
    },
    remove: (directory) => (zfs.holds(directory) ? zfs.remove(directory) : removeDirectory(directory)),
  };
}

type Run = NonNullable<ZfsOptions['run']>;

/** The directories of the store whose entries are datasets. */
const RESULTS = 'result';
const RESULTS_TMP = 'result-tmp';
/** OBuilder's name. A result is whole exactly when it has this snapshot. */
const SNAPSHOT = 'snap';

class Zfs {
  readonly #root: string;
  readonly #dataset: string;
  readonly #run: Run;

  constructor(root: string, dataset: string, run: Run) {
    this.#root = root;
    this.#dataset = dataset;
    this.#run = run;
  }

  async prepare(): Promise<void> {
    for (const name of [RESULTS, RESULTS_TMP]) {
      if (!(await this.#exists(`${this.#dataset}/${name}`)))
        await this.#zfs('create', `${this.#dataset}/${name}`);
    }
    const whole = await this.#list('snapshot', 2);
    for (const dataset of await this.#list('filesystem', 1)) {
      const isResult = dataset !== `${this.#dataset}/${RESULTS}`;
      if (isResult && !whole.includes(`${dataset}@${SNAPSHOT}`)) await this.#setAside(basename(dataset));
    }
  }

  /** Opening the store then removes it, unless something keeps it. */
  async #setAside(result: string): Promise<void> {
    await this.move(join(this.#root, RESULTS, result), setAsidePath(result, join(this.#root, RESULTS_TMP)));
  }

  holds(unit: string): boolean {
    const directory = dirname(unit);
    return directory === join(this.#root, RESULTS) || directory === join(this.#root, RESULTS_TMP);
  }

  async create(target: string): Promise<void> {
    await this.#zfs('create', this.#datasetOf(target));
    await chmod(target, 0o700);
  }

  async clone(source: string, target: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const snapshot = `${this.#datasetOf(source)}@${SNAPSHOT}`;
    const isResult = basename(dirname(source)) === RESULTS;
    if (!isResult && !(await this.#exists(snapshot))) await this.#zfs('snapshot', snapshot);
    await this.#zfs('clone', snapshot, this.#datasetOf(target));
  }

  /** What becomes a result gets its snapshot first, so that it never is one without. */
  async move(from: string, to: string): Promise<void> {
    await lstat(from); // ENOENT for what is not there
    const dataset = this.#datasetOf(from);
    if (!(await this.#exists(dataset))) {
      await rename(from, to);
      return;
    }
    if (basename(dirname(to)) === RESULTS) await this.#zfs('snapshot', `${dataset}@${SNAPSHOT}`);
    await this.#zfs('rename', '-f', dataset, this.#datasetOf(to));
  }

  async remove(directory: string): Promise<void> {
    const dataset = this.#datasetOf(directory);
    if (await this.#exists(dataset)) await this.#zfs('destroy', '-r', '-f', dataset); // refused while there are clones
    await removeDirectory(directory);
  }

  async sync(): Promise<void> {
    await this.#run(['zpool', 'sync', this.#dataset.replace(/\/.*/s, '')]);
  }

  #datasetOf(unit: string): string {
    return `${this.#dataset}/${basename(dirname(unit))}/${basename(unit)}`;
  }

  async #exists(dataset: string): Promise<boolean> {
    const { exitCode } = await this.#run(['zfs', 'list', '-H', '-o', 'name', '--', dataset], {
      okCodes: [0, 1],
    });
    return exitCode === 0;
  }

  async #list(type: 'filesystem' | 'snapshot', depth: number): Promise<string[]> {
    const below = `${this.#dataset}/${RESULTS}`;
    const argv = ['zfs', 'list', '-H', '-o', 'name', '-t', type, '-d', String(depth), '--', below];
    return (await this.#run(argv)).stdout.split('\n').filter((name) => name !== '');
  }

  async #zfs(action: string, ...args: string[]): Promise<void> {
    await this.#run(['zfs', action, ...args]);
  }
}

async function datasetAt(mountPoint: string, run: Run): Promise<string> {
  const argv = ['zfs', 'list', '-H', '-o', 'name,mountpoint,mounted', '-t', 'filesystem'];
  const { stdout } = await run(argv).catch((error: unknown) => {
    if (errnoCode(error) === 'COMMAND_MISSING') throw noPool(mountPoint, 'there is no command zfs', error);
    throw error;
  });
  for (const line of stdout.split('\n')) {
    const [name = '', at, mounted] = line.split('\t');
    if (at === mountPoint && mounted === 'yes') return name;
  }
  throw noPool(mountPoint, 'no dataset of zfs is mounted there');
}

function noPool(mountPoint: string, why: string, cause?: unknown): ObuilderError {
  return new ObuilderError('STORE_KIND', `zfs store at ${mountPoint}: ${why}`, {
    hint: 'install ZFS and make or import the pool (zpool import POOL), or take another --store',
    cause,
  });
}

async function moveDirectory(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (errnoCode(error) !== 'EXDEV') throw error;
    throw new ObuilderError('STORE_LAYOUT', `${from}: lies in a dataset of its own`, {
      hint: "caches are plain directories here: zfs destroy -r the store's cache and cache-tmp; caches fill again",
      cause: error,
    });
  }
}
