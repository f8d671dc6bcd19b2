import type { CommandModule } from 'yargs';
import { checkRoot } from '../../fs/prefix-path.ts';
import { readMountStatus, type EntryStatus, type MountStatus } from '../../fs/mount-status.ts';
import { jsonOption, stateDirOption } from '../common-options.ts';

interface StatusArguments {
  json: boolean;
  'state-dir': string;
}

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: 'status',
  describe: 'Show what is mounted, who sees what there, and why not',
  builder: (yargs) =>
    yargs
      .option('json', jsonOption)
      .option('state-dir', stateDirOption)
      .example('$0 status', 'every mount, who sees which tree there, and why an entry gets EACCES'),
  handler: async (argv) => {
    checkRoot('status');
    const mounts = await readMountStatus(argv['state-dir']);
    if (argv.json) console.log(JSON.stringify({ mounts }, undefined, 2));
    else if (mounts.length === 0) console.log('nothing is mounted');
    else for (const mount of mounts) console.log(describeMount(mount));
  },
};

const STATE_WORDS: Record<MountStatus['state'], string> = {
  serving: 'serving',
  dead: 'dead: its process is gone (obuilder-fs unmount takes it away)',
  lost: 'not mounted: its process was killed',
  unknown: 'mounted with another --state-dir',
};

function describeMount(mount: MountStatus): string {
  const pid = mount.pid === undefined ? '' : `, pid ${mount.pid}`;
  const head = `${mount.prefix}: ${STATE_WORDS[mount.state]}${pid}, scoreboard ${mount.scoreboard}`;
  const others = `  others  see ${mount.unmapped ?? 'the covered directory'}`;
  return [head, ...mount.entries.map(describeEntry), ...(mount.state === 'serving' ? [others] : [])].join(
    '\n',
  );
}

function describeEntry(entry: EntryStatus): string {
  const name = `  ${entry.uid.padEnd(7)}`;
  return entry.isUsable
    ? `${name} sees ${entry.tree}`
    : `${name} gets EACCES: ${entry.target} — ${entry.problem ?? ''}`;
}
