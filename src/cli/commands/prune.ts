import type { CommandModule } from 'yargs';
import { ObuilderError } from '../../errors.ts';
import type { DiskSpace } from '../../store/store-space.ts';
import type { Store } from '../../store/store.ts';
import { jsonOption } from '../common-options.ts';
import { openStore } from '../compose.ts';
import { storeOptionsOf, withStoreFlags, type StoreArguments } from '../host-options.ts';
import { createProgress } from '../progress-line.ts';
import { bytesOf, spaceSize, type SpaceSize } from '../space-options.ts';
import { formatBytes } from '../format-bytes.ts';

interface PruneArguments extends StoreArguments {
  free: SpaceSize | undefined;
  before: Date | undefined;
  'dry-run': boolean;
  json: boolean;
}

/** What was removed, or would be. */
interface Pruned {
  readonly ids: readonly string[];
  readonly before: DiskSpace;
  readonly after: DiskSpace;
}

export const pruneCommand: CommandModule<object, PruneArguments> = {
  command: 'prune',
  describe: 'Remove the results that were not used for longest; never what a running build needs',
  builder: (yargs) =>
    withStoreFlags(yargs)
      .option('free', {
        type: 'string',
        requiresArg: true,
        describe: 'Stop as soon as so much of the disk is free: 10% or 20G',
        coerce: spaceSize('free'),
      })
      .option('before', {
        type: 'string',
        requiresArg: true,
        describe: 'Only what was not used since, such as 2026-01-31 or 2026-01-31T12:00 (UTC)',
        coerce: dateOf,
      })
      .option('dry-run', { type: 'boolean', default: false, describe: 'Only tell what would be removed' })
      .option('json', jsonOption)
      .check(({ free, before }) => {
        if (free !== undefined || before !== undefined) return true;
        throw new ObuilderError('BAD_OPTION', 'prune: neither --free nor --before is given', {
          hint: 'say how much is to go: --free=10%, --before=2026-01-31, or both; clean removes everything',
        });
      })
      .example('$0 prune --free=20%', 'make a fifth of the disk free')
      .example('$0 prune --before=2026-01-31 --dry-run', 'what is older?'),
  handler: async (argv) => {
    const store = await openStore(storeOptionsOf(argv));
    try {
      const pruned = argv['dry-run'] ? await whatWouldGo(store, argv) : await prune(store, argv);
      if (argv.json) console.log(JSON.stringify(prunedJson(pruned, argv['dry-run']), undefined, 2));
      else console.log(prunedLine(pruned, argv['dry-run']));
    } finally {
      store.close();
    }
  },
};

/** The index counts whole seconds: what was used in this one may go, too. */
function boundOf({ before }: PruneArguments): Date {
  return before ?? new Date(Date.now() + 1000);
}

async function prune(store: Store, argv: PruneArguments): Promise<Pruned> {
  const before = await store.space();
  const wanted = argv.free === undefined ? undefined : bytesOf(argv.free, before);
  const planned = store.prunable(boundOf(argv)).length;
  const progress = createProgress('removing results', wanted === undefined ? { items: planned } : {});
  const ids: string[] = [];
  const removed = (id: string) => {
    ids.push(id);
    progress.note(argv.json ? undefined : `Removing ${id}`, { items: ids.length });
  };
  try {
    if (wanted === undefined) await store.prune(boundOf(argv), Infinity, removed);
    else await store.makeRoom(wanted, boundOf(argv), removed);
  } finally {
    progress.end();
  }
  const after = await store.space();
  if (wanted !== undefined && after.freeBytes < wanted) warnShort(after, wanted);
  return { ids, before, after };
}

function warnShort({ freeBytes }: DiskSpace, wanted: number): void {
  console.error(
    `obuilder-fs: only ${formatBytes(freeBytes)} of ${formatBytes(wanted)} could be made free: the rest is in use, or not the store's`,
  );
}

/** By what each result takes alone: storage that several share is free only when the last of them goes. */
async function whatWouldGo(store: Store, argv: PruneArguments): Promise<Pruned> {
  const before = await store.space();
  const wanted = argv.free === undefined ? Infinity : bytesOf(argv.free, before);
  const { results, sharedByResults, failed } = await store.usage();
  const ids: string[] = [];
  let { freeBytes } = before;
  for (const id of store.prunable(boundOf(argv))) {
    if (freeBytes >= wanted) break;
    ids.push(id);
    freeBytes += (results.get(id) ?? failed.get(id) ?? 0) - (sharedByResults.get(id) ?? 0);
    if (!argv.json) console.log(`Would remove ${id}`);
  }
  return { ids, before, after: { ...before, freeBytes: Math.min(freeBytes, before.totalBytes) } };
}

function prunedJson({ ids, before, after }: Pruned, dryRun: boolean) {
  return { dryRun, removed: ids, freedBytes: after.freeBytes - before.freeBytes, ...after };
}

function prunedLine({ ids, before, after }: Pruned, dryRun: boolean): string {
  const freed = formatBytes(Math.max(0, after.freeBytes - before.freeBytes));
  const free = `${formatBytes(after.freeBytes)} of ${formatBytes(after.totalBytes)} free`;
  return dryRun
    ? `Would remove ${ids.length} items (about ${freed}); then ${free}`
    : `Removed ${ids.length} items (${freed}); ${free}`;
}

function dateOf(given: string | string[]): Date {
  const text = String(given);
  const date = new Date(
    /T.*(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}${text.includes('T') ? 'Z' : ''}`,
  );
  if (!Number.isNaN(date.getTime())) return date;
  throw new ObuilderError('BAD_OPTION', `--before=${text}: not a date`, {
    hint: 'give one such as 2026-01-31',
  });
}
