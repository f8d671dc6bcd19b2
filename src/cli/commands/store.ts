import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { errnoCode } from '../../errors.ts';
import type { StoreProblem } from '../../store/store-verify.ts';
import type { ResultRecord, Store, StoreUsage } from '../../store/store.ts';
import { jsonOption } from '../common-options.ts';
import { openStore, verifyStoreOf } from '../compose.ts';
import { EXIT_FAILURE } from '../exit-codes.ts';
import { formatBytes } from '../format-bytes.ts';
import { storeOptionsOf, withStoreFlags, type StoreArguments } from '../host-options.ts';
import { directoryOfResult, idPositional } from '../stored-result.ts';

interface ReportArguments extends StoreArguments {
  json: boolean;
}

interface ShowArguments extends ReportArguments {
  id: string;
}

export const storeCommand: CommandModule = {
  command: 'store <command>',
  describe: 'See what is in the store, and whether it is in order',
  builder: (yargs: Argv) =>
    yargs.command([listCommand, showCommand, duCommand, verifyCommand] as CommandModule[]).demandCommand(1),
  handler: () => undefined,
};

const listCommand: CommandModule<object, ReportArguments> = {
  command: 'list',
  describe: 'Every result, the longest unused first',
  builder: withReportFlags,
  handler: (argv) =>
    report(argv, (store) => {
      const records = store.records();
      return { json: { results: records.map(recordJson) }, text: records.map(recordLine).join('\n') };
    }),
};

const showCommand: CommandModule<object, ShowArguments> = {
  command: 'show <id>',
  describe: 'One result: where it is, what it was made from, and what from it',
  builder: (yargs) => withReportFlags(yargs).positional('id', idPositional),
  handler: (argv) =>
    report(argv, async (store) => {
      const result = await detailsOf(store, argv.id);
      return { json: result, text: detailLines(result) };
    }),
};

const duCommand: CommandModule<object, ReportArguments> = {
  command: 'du',
  describe: 'What results, caches and the kept trees of failed steps take on disk, the largest first',
  builder: withReportFlags,
  handler: (argv) =>
    report(argv, async (store) => {
      const usage = await store.usage();
      return { json: usageJson(usage), text: usageLines(usage).join('\n') };
    }),
};

interface VerifyArguments extends ReportArguments {
  'dry-run': boolean;
}

const verifyCommand: CommandModule<object, VerifyArguments> = {
  command: 'verify',
  describe: 'Compare the index with what is on disk, and put right what differs',
  builder: (yargs) =>
    withReportFlags(yargs).option('dry-run', {
      type: 'boolean',
      default: false,
      describe: 'Only tell what is wrong',
    }),
  handler: async (argv) => {
    const problems = await verifyStoreOf(storeOptionsOf(argv), { dryRun: argv['dry-run'] });
    if (argv.json) console.log(JSON.stringify({ problems }, undefined, 2));
    else console.log(problems.length === 0 ? 'The store is in order' : problems.map(problemLine).join('\n'));
    if (problems.some(({ isRepaired }) => !isRepaired)) process.exitCode = EXIT_FAILURE;
  },
};

function problemLine({ kind, what, remedy, isRepaired }: StoreProblem): string {
  return `${isRepaired ? 'repaired' : 'problem '}  ${kind.padEnd(18)}  ${what}: ${remedy}`;
}

function withReportFlags<T>(yargs: Argv<T>) {
  return withStoreFlags(yargs).option('json', jsonOption);
}

interface Report {
  readonly json: unknown;
  readonly text: string;
}

async function report(
  argv: ReportArguments,
  make: (store: Store) => Report | Promise<Report>,
): Promise<void> {
  const store = await openStore(storeOptionsOf(argv));
  try {
    const { json, text } = await make(store);
    if (argv.json) console.log(JSON.stringify(json, undefined, 2));
    else if (text !== '') console.log(text);
  } finally {
    store.close();
  }
}

function recordJson({ id, parent, childCount, createdAt, usedAt }: ResultRecord) {
  return {
    id,
    parent: parent ?? null,
    children: childCount,
    created: createdAt.toISOString(),
    used: usedAt.toISOString(),
  };
}

function recordLine({ id, childCount, usedAt }: ResultRecord): string {
  const children = childCount === 0 ? '' : `, ${childCount} made from it`;
  return `${id}  used ${minutesOf(usedAt)}${children}`;
}

/** `2026-01-31 23:59` UTC */
function minutesOf(time: Date): string {
  return time.toISOString().slice(0, 16).replace('T', ' ');
}

interface ResultDetails {
  readonly id: string;
  readonly directory: string;
  readonly parent: string | null;
  readonly children: readonly string[];
  readonly created: string | null;
  readonly used: string | null;
  readonly logBytes: number;
}

async function detailsOf(store: Store, id: string): Promise<ResultDetails> {
  const directory = await directoryOfResult(store, id);
  const records = store.records();
  const record = records.find((one) => one.id === id);
  return {
    id,
    directory,
    parent: record?.parent ?? null,
    children: records.filter(({ parent }) => parent === id).map((child) => child.id),
    created: record?.createdAt.toISOString() ?? null,
    used: record?.usedAt.toISOString() ?? null,
    logBytes: await sizeOf(join(directory, 'log')),
  };
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return 0;
    throw error;
  }
}

function detailLines({ children, ...rest }: ResultDetails): string {
  return Object.entries({ ...rest, children: children.length === 0 ? null : children.join(' ') })
    .map(([key, value]) => `${key.padEnd(9)} ${value ?? '-'}`)
    .join('\n');
}

function usageJson({ results, sharedByResults, caches, failed, totalBytes }: StoreUsage) {
  return {
    totalBytes,
    results: Object.fromEntries(results),
    sharedByResults: Object.fromEntries(sharedByResults),
    caches: Object.fromEntries(caches),
    failed: Object.fromEntries(failed),
  };
}

function usageLines({ results, sharedByResults, caches, failed, totalBytes }: StoreUsage): string[] {
  const shared = (name: string) => {
    const bytes = sharedByResults.get(name) ?? 0;
    return bytes === 0 ? '' : `, ${formatBytes(bytes)} of it shared`;
  };
  const lines = (kind: string, sizes: ReadonlyMap<string, number>) =>
    [...sizes]
      .sort(([, a], [, b]) => b - a)
      .map(([name, bytes]) => `${mebibytes(bytes)} ${kind} ${name}${shared(name)}`);
  return [
    ...lines('result', results),
    ...lines('cache ', caches),
    ...lines('failed', failed),
    `${mebibytes(totalBytes)} in all`,
  ];
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1).padStart(10)} MiB`;
}
