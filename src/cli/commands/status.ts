import { setTimeout } from 'node:timers/promises';
import type { CommandModule } from 'yargs';
import { checkRoot } from '../../fs/prefix-path.ts';
import {
  readMountStatus,
  type EntryStatus,
  type MountStatus,
  type TreeCounters,
} from '../../fs/mount-status.ts';
import { jsonOption, stateDirOption } from '../common-options.ts';

interface StatusArguments {
  json: boolean;
  watch: boolean;
  'state-dir': string;
}

const WATCH_INTERVAL_MS = 1_000;
const CLEAR_TERMINAL = '\x1b[H\x1b[J';

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: 'status',
  describe: 'Show what is mounted, who sees what there, and why not',
  builder: (yargs) =>
    yargs
      .option('json', jsonOption)
      .option('watch', {
        type: 'boolean',
        default: false,
        describe: 'Show it again every second, until Ctrl-C',
      })
      .option('state-dir', stateDirOption)
      .example('$0 status', 'every mount, who sees which tree there, and why an entry gets EACCES')
      .example('$0 status --watch', 'how the counters move'),
  handler: async (argv) => {
    checkRoot('status');
    console.log(await describe(argv));
    while (argv.watch) {
      await setTimeout(WATCH_INTERVAL_MS);
      const text = await describe(argv);
      console.log(process.stdout.isTTY ? CLEAR_TERMINAL + text : text);
    }
  },
};

async function describe(argv: StatusArguments): Promise<string> {
  const mounts = await readMountStatus(argv['state-dir']);
  if (argv.json) return JSON.stringify({ mounts }, undefined, 2);
  return mounts.length === 0 ? 'nothing is mounted' : mounts.map(describeMount).join('\n');
}

const STATE_WORDS: Record<MountStatus['state'], string> = {
  serving: 'serving',
  silent: 'its process does not answer (obuilder-fs unmount --force takes it away)',
  dead: 'dead: its process is gone (obuilder-fs unmount takes it away)',
  lost: 'not mounted: its process was killed',
  unknown: 'mounted with another --state-dir',
};

function describeMount(mount: MountStatus): string {
  const pid = mount.pid === undefined ? '' : `, pid ${mount.pid}`;
  const head = `${mount.prefix}: ${STATE_WORDS[mount.state]}${pid}, scoreboard ${mount.scoreboard}`;
  const others = `  others  see ${mount.unmapped ?? 'the covered directory'}${describeCounters(mount.others)}`;
  const hasOthers = mount.state === 'serving' || mount.state === 'silent';
  return [head, ...mount.entries.map(describeEntry), ...(hasOthers ? [others] : [])].join('\n');
}

function describeEntry(entry: EntryStatus): string {
  const name = `  ${entry.uid.padEnd(7)}`;
  return entry.isUsable
    ? `${name} sees ${entry.tree}${describeCounters(entry.counters)}`
    : `${name} gets EACCES: ${entry.target} — ${entry.problem ?? ''}`;
}

function describeCounters(counters: TreeCounters | undefined): string {
  if (counters === undefined) return '';
  const { generation, operations, errors, openFiles, cachedNodes } = counters;
  return ` (generation ${generation}; ${operations} operations, ${errors} errors; ${openFiles} open, ${cachedNodes} known files)`;
}
