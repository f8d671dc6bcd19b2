import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ObuilderError } from '../../src/errors.ts';
import type { CommandOptions, CommandResult } from '../../src/os/exec.ts';
import type { ZfsOptions } from '../../src/store/zfs-copier.ts';

/** The pool's dataset in which the store lies. */
export const DATASET = 'tank/obuilder';

/**
 * `zfs` and `zpool` for machines without them: what ZFS does with datasets is done with directories, by ZFS's rules as zfs(8) has them, and
 * every command that changes something is recorded.
 */
export class RecordedZfs {
  readonly mountPoint: string;
  /** Without the names of zfs and of its options for scripts; ids and random names as they are. */
  readonly changes: string[] = [];
  /** Fails, or kills whoever asked, in place of a command. */
  intercept: (command: string) => void = () => undefined;
  readonly #snapshots: string;
  readonly #datasets = new Set([DATASET]);
  /** By the dataset's name, of its snapshot `snap`. */
  readonly #content = new Map<string, string>();
  /** From a clone to where its snapshot's content lies, which stays the same when datasets are renamed. */
  readonly #origins = new Map<string, string>();
  #count = 0;

  /** Everything lies in `mountPoint`; it is made. */
  constructor(mountPoint: string) {
    this.mountPoint = mountPoint;
    this.#snapshots = join(mountPoint, '.zfs');
    mkdirSync(this.#snapshots, { recursive: true });
  }

  /** What is refused rejects. */
  readonly run: NonNullable<ZfsOptions['run']> = (argv, options) =>
    new Promise((resolve) => resolve(this.#answer(argv, options)));

  datasets(): string[] {
    return [...this.#datasets].sort();
  }

  hasSnapshot(dataset: string): boolean {
    return this.#content.has(dataset);
  }

  #answer(argv: readonly string[], { okCodes = [0] }: CommandOptions = {}): CommandResult {
    const [program = '', action = '', ...args] = argv;
    const command = [action, ...args].join(' ');
    if (program !== 'zfs' && program !== 'zpool') throw new Error(`not a command of ZFS: ${program}`);
    try {
      if (action === 'list' || action === 'get') return answered(this.#query(action, args));
      const recorded = program === 'zfs' ? command : `zpool ${command}`;
      this.intercept(recorded);
      this.changes.push(recorded);
      this.#change(program, action, args);
      return answered('');
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (okCodes.includes(1)) return { exitCode: 1, stdout: '', stderr: error.message };
      throw new ObuilderError(
        'COMMAND_FAILED',
        `${argv.join(' ')}: ended with exit status 1: ${error.message}`,
      );
    }
  }

  #query(action: string, args: readonly string[]): string {
    const about = args.at(-1) ?? '';
    if (action === 'get') return this.#clonesOf(about.replace(/@snap$/, '')).join(',');
    if (args.includes('name,mountpoint,mounted')) return this.#mounts();
    if (about.endsWith('@snap')) return this.#namedSnapshot(about.replace(/@snap$/, ''));
    const depth = args.includes('-d') ? Number(args[args.indexOf('-d') + 1]) : 0;
    const names = args.includes('snapshot')
      ? this.#below(about, depth - 1)
          .filter((name) => this.#content.has(name))
          .map((name) => `${name}@snap`)
      : this.#below(about, depth);
    return names.join('\n');
  }

  #namedSnapshot(dataset: string): string {
    if (this.#content.has(dataset)) return `${dataset}@snap`;
    throw new Refused(`cannot open '${dataset}@snap': dataset does not exist`);
  }

  #mounts(): string {
    return [...this.#datasets].map((name) => `${name}\t${this.#pathOf(name)}\tyes`).join('\n');
  }

  #below(top: string, depth: number): string[] {
    this.#mustExist(top);
    const levelOf = (name: string) => name.split('/').length;
    return this.datasets().filter(
      (name) =>
        (name === top || name.startsWith(`${top}/`)) && levelOf(name) <= levelOf(top) + Math.max(depth, 0),
    );
  }

  #clonesOf(dataset: string): string[] {
    const content = this.#content.get(dataset);
    if (content === undefined) throw new Refused(`cannot open '${dataset}@snap': dataset does not exist`);
    return [...this.#origins].filter(([, origin]) => origin === content).map(([clone]) => clone);
  }

  #change(program: string, action: string, args: readonly string[]): void {
    const names = args.filter((arg) => !arg.startsWith('-'));
    const [first = '', second = ''] = names;
    if (program === 'zpool') {
      if (action !== 'sync' || first !== DATASET.split('/')[0]) throw new Refused(`no such pool: ${first}`);
    } else if (action === 'create') this.#create(first);
    else if (action === 'snapshot') this.#snapshot(first.replace(/@snap$/, ''));
    else if (action === 'clone') this.#clone(first.replace(/@snap$/, ''), second);
    else if (action === 'rename') this.#rename(first, second);
    else if (action === 'destroy') this.#destroy(first);
    else throw new Error(`zfs ${action} is not known here`);
  }

  #create(dataset: string): void {
    this.#mustBeNew(dataset);
    this.#datasets.add(dataset);
    mkdirSync(this.#pathOf(dataset), { recursive: true, mode: 0o755 });
  }

  #snapshot(dataset: string): void {
    this.#mustExist(dataset);
    if (this.#content.has(dataset))
      throw new Refused(`cannot create snapshot '${dataset}@snap': dataset already exists`);
    const content = join(this.#snapshots, String(this.#count++));
    execFileSync('cp', ['-a', this.#pathOf(dataset), content]);
    this.#content.set(dataset, content);
  }

  #clone(from: string, to: string): void {
    const content = this.#content.get(from);
    if (content === undefined) throw new Refused(`cannot open '${from}@snap': dataset does not exist`);
    this.#mustBeNew(to);
    this.#datasets.add(to);
    this.#origins.set(to, content);
    rmSync(this.#pathOf(to), { recursive: true, force: true });
    execFileSync('cp', ['-a', content, this.#pathOf(to)]);
  }

  #rename(from: string, to: string): void {
    this.#mustExist(from);
    this.#mustBeNew(to);
    renameSync(this.#pathOf(from), this.#pathOf(to));
    this.#datasets.delete(from);
    this.#datasets.add(to);
    for (const about of [this.#content, this.#origins]) {
      const value = about.get(from);
      if (value === undefined) continue;
      about.delete(from);
      about.set(to, value);
    }
  }

  /** With -r: snapshots too, and never what was cloned from them. */
  #destroy(dataset: string): void {
    this.#mustExist(dataset);
    if (this.#content.has(dataset) && this.#clonesOf(dataset).length > 0) {
      throw new Refused(`cannot destroy '${dataset}': filesystem has dependent clones`);
    }
    rmSync(this.#pathOf(dataset), { recursive: true, force: true });
    this.#datasets.delete(dataset);
    this.#content.delete(dataset);
    this.#origins.delete(dataset);
  }

  #pathOf(dataset: string): string {
    return join(this.mountPoint, dataset.slice(DATASET.length));
  }

  #mustExist(dataset: string): void {
    if (!this.#datasets.has(dataset)) throw new Refused(`cannot open '${dataset}': dataset does not exist`);
  }

  #mustBeNew(dataset: string): void {
    if (this.#datasets.has(dataset)) throw new Refused(`cannot create '${dataset}': dataset already exists`);
    this.#mustExist(dirname(dataset));
    const path = this.#pathOf(dataset);
    if (existsSync(path) && readdirSync(path).length > 0) {
      throw new Refused(`cannot mount '${path}': directory is not empty`);
    }
  }
}

/** What zfs answers with exit status 1. */
class Refused extends Error {}

function answered(stdout: string): CommandResult {
  return { exitCode: 0, stdout: stdout === '' ? '' : `${stdout}\n`, stderr: '' };
}
