import { join } from 'node:path';
import { CALLERS, COMPILER, type CallerNumber, type DataSet } from './data-set.ts';

/** One job that callers do below a contender; it yields one figure or more. */
export interface Workload {
  readonly name: string;
  readonly description: string;
  /** What an operation is. */
  readonly unit: string;
  readonly figures: readonly string[];
  /** Long ones are for those whose targets need them; the others are for everybody who can. */
  readonly contenders: 'all' | 'main' | 'tree';
  /** How many do it at once. */
  readonly callers: 1 | 2;
  /** Arguments of client.cc for one caller. */
  client(data: DataSet, root: string, caller: CallerNumber): string[];
}

/** Of these the long workloads are measured. */
export const MAIN_CONTENDERS = [
  ...['native', 'bind', 'tree', 'shared', 'none', 'none-shared'],
  ...['tree-uring', 'shared-uring', 'none-uring'],
  ...['bindfs', 'mergerfs', 'passthrough_ll'],
];

const simple = (name: string, description: string): Workload => ({
  name,
  description,
  unit: 'call',
  figures: [name],
  contenders: 'all',
  callers: 1,
  client: ({ size }, root) => [name, root, String(size.operations)],
});

const compile: Workload = {
  name: 'compile',
  description: 'compile a C++ file, with all its headers below the root; the first time and again',
  unit: 'compilation',
  figures: ['compile-first', 'compile'],
  contenders: 'main',
  callers: 1,
  client: ({ headerDirectories, compiled }, root) => [
    ...['compile', root, '1', ...COMPILER, '-c', '-o', '/dev/null', '-nostdinc', '-nostdinc++'],
    ...headerDirectories.flatMap((directory) => ['-isystem', join(root, directory)]),
    compiled,
  ],
};

const stat = simple('stat', 'stat of known paths, two directories deep');
const open = simple('open', 'open, read and close files of 4 KiB');

/** In the order in which a run does them: the walks come last, for then the mount knows many files. */
export const workloads: readonly Workload[] = [
  stat,
  simple('lookup', 'stat of one name in the root itself'),
  open,
  simple('missing', 'stat of names that do not exist'),
  simple('links', 'stat through two links, as Homebrew links bin to Cellar'),
  {
    ...simple('changes', 'create and write, rename, and unlink files of 4 KiB'),
    figures: ['create', 'rename', 'unlink'],
    client: ({ size }, root) => ['changes', root, String(size.changes)],
  },
  {
    name: 'sequential',
    description: 'read a large file, cold and warm; write one and fsync',
    unit: 'MiB',
    figures: ['read-cold', 'read-warm', 'write'],
    contenders: 'main',
    callers: 1,
    client: ({ size, directory }, root) => [
      ...['sequential', root, String(size.largeFileMiB)],
      join(directory(0), 'large-file'),
    ],
  },
  compile,
  {
    name: 'sources',
    description: 'untar a repository and ask git for its status, the first time and again',
    unit: 'file',
    figures: ['untar', 'git-status-first', 'git-status'],
    contenders: 'main',
    callers: 1,
    client: ({ size, archive }, root) => ['sources', root, String(size.sourceFiles), archive],
  },
  twice(stat),
  twice(open),
  twice(compile),
  {
    ...simple('walk', 'walk a tree that the mount has not seen, then again'),
    unit: 'file',
    figures: ['walk', 'walk-again'],
  },
  {
    ...simple('grow', 'walk a tree that the mount has not seen, then one of ten times the size'),
    unit: 'file',
    figures: ['grow-small', 'grow-large'],
    contenders: 'tree',
  },
];

/** The same by two callers at once; an operation's time is the slower one's. */
function twice(workload: Workload): Workload {
  return {
    ...workload,
    name: `two-${workload.name}`,
    description: `two callers at once: ${workload.description}`,
    figures: workload.figures.map((figure) => `two-${figure}`),
    contenders: workload.contenders,
    callers: 2,
  };
}

/** Whether a contender takes part in a workload. Two callers are told apart by ours alone; with peers they share a tree. */
export function takesPart(workload: Workload, contender: string): boolean {
  if (contender === 'one-file') return workload.name === 'lookup';
  switch (workload.contenders) {
    case 'all':
      return true;
    case 'main':
      return MAIN_CONTENDERS.includes(contender);
    case 'tree':
      return contender === 'tree';
  }
}

/** The callers that do a workload. */
export function callersOf({ callers }: Workload): CallerNumber[] {
  return ([0, 1] as const).slice(0, Math.min(callers, CALLERS.length));
}
