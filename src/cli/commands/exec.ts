import { spawn } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import type { CommandModule } from 'yargs';
import { ObuilderError } from '../../errors.ts';
import { canonicalPrefix, checkRoot } from '../../fs/prefix-path.ts';
import { createRunDirectory, liveRecord, prefixFiles, type MountRecord } from '../../fs/run-directory.ts';
import { treeDoor } from '../../fs/tree-door.ts';
import { stateDirOption } from '../common-options.ts';

interface ExecArguments {
  uid: number;
  'prefix-mode': 'tree' | 'shared';
  prefix: string;
  'state-dir': string;
  '--'?: string[];
}

export const execCommand: CommandModule<object, ExecArguments> = {
  command: 'exec <prefix>',
  describe: 'Run a command as a uid that sees its own tree at a served prefix',
  builder: (yargs) =>
    yargs
      .positional('prefix', {
        type: 'string',
        demandOption: true,
        describe: 'A prefix that obuilder-fs serves',
      })
      .option('uid', {
        type: 'number',
        requiresArg: true,
        demandOption: true,
        describe: 'Run the command as this uid',
      })
      .option('prefix-mode', {
        choices: ['tree', 'shared'] as const,
        default: process.platform === 'darwin' ? ('shared' as const) : ('tree' as const),
        describe:
          'tree: its own tree, bound over the prefix for the command alone; shared: the prefix as everybody meets it',
      })
      .option('state-dir', stateDirOption)
      .example('$0 exec --uid 7000 /usr/local -- ls -l /usr/local/bin', 'what uid 7000 sees'),
  handler: async (argv) => {
    checkRoot('exec');
    const command = argv['--'] ?? [];
    if (command.length === 0) {
      throw new ObuilderError('BAD_USAGE', 'exec: no command', {
        hint: 'put it after --, as in: exec --uid 7000 /usr/local -- ls',
      });
    }
    if (!Number.isInteger(argv.uid) || argv.uid < 0) {
      throw new ObuilderError('BAD_UID', 'exec: --uid is not a uid', { hint: 'give a whole number' });
    }
    const prefix = await canonicalPrefix(argv.prefix);
    const record = liveRecord(prefixFiles(createRunDirectory(argv['state-dir']), prefix));
    if (record === undefined) {
      throw new ObuilderError('NOT_MOUNTED', `prefix ${prefix} is not served`, {
        hint: `mount it first: obuilder-fs mount ${prefix} --scoreboard DIR`,
      });
    }
    process.exitCode = await run(commandAs(record, argv, command));
  },
};

function commandAs(record: MountRecord, argv: ExecArguments, command: readonly string[]): string[] {
  const account = readAccount(argv.uid);
  const asUser = asUserCommand(argv.uid, account, command);
  const door =
    argv['prefix-mode'] === 'tree'
      ? usableDoor(treeDoor(record, argv.uid, account?.gid ?? argv.uid))
      : undefined;
  if (door === undefined) return asUser;
  const bindAndRun = 'mount --bind -- "$1" "$2" && cd "$3" && shift 3 && exec "$@"';
  return [
    ...[
      'unshare',
      '--mount',
      '--propagation',
      'private',
      '--',
      '/bin/sh',
      '-c',
      bindAndRun,
      'obuilder-fs-exec',
    ],
    ...[door, record.prefix, process.cwd()],
    ...asUser,
  ];
}

/** A uid without a usable entry has no tree: at the shared root it gets what it is due, the covered directory or EACCES. */
function usableDoor(door: string): string | undefined {
  try {
    statSync(door);
    return door;
  } catch {
    return undefined;
  }
}

interface Account {
  readonly name: string;
  readonly gid: number;
}

function readAccount(uid: number): Account | undefined {
  if (process.platform === 'darwin') return undefined;
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name = '', , lineUid, gid] = line.split(':');
    if (Number(lineUid) === uid && lineUid !== '') return { name, gid: Number(gid) };
  }
  return undefined;
}

function asUserCommand(uid: number, account: Account | undefined, command: readonly string[]): string[] {
  if (process.platform === 'darwin') return ['sudo', '-u', `#${uid}`, '--', ...command];
  const gid = account?.gid ?? uid;
  // The account's groups by its name: numbers alone would lose them.
  const groups = account === undefined ? ['--clear-groups'] : ['--init-groups'];
  return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, ...groups, '--', ...command];
}

/** Runs with this process's terminal and answers the exit code, as shells count it. Signals from a terminal reach the command by itself. */
function run(argv: readonly string[]): Promise<number> {
  const [command = '', ...args] = argv;
  const child = spawn(command, args, { stdio: 'inherit' });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  const ignore = () => undefined;
  process.on('SIGTERM', forward);
  process.on('SIGINT', ignore);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      process.off('SIGTERM', forward);
      process.off('SIGINT', ignore);
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}
