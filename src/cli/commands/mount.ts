import type { CommandModule } from 'yargs';
import { serveMounts, type MountRequest, type ServedMounts } from '../../fs/mount-process.ts';
import { BACKINGS, type Backing } from '../../fs/native.ts';
import { startInBackground, type MountMessage } from '../../fs/mount-supervisor.ts';
import { canonicalPrefix, checkRoot, parsePrefixRequest } from '../../fs/prefix-path.ts';
import { createRunDirectory, prefixFiles } from '../../fs/run-directory.ts';
import { ObuilderError } from '../../errors.ts';
import { onePath, stateDirOption } from '../common-options.ts';
import { EXIT_OK } from '../exit-codes.ts';
import { programArgv } from '../program.ts';

interface MountArguments {
  prefix: string[];
  scoreboard: string;
  unmapped: string | undefined;
  cache: 'auto' | 'none';
  'map-owner': boolean;
  backing: Backing;
  o: string[];
  daemon: boolean;
  'state-dir': string;
  leased: boolean;
}

export const mountCommand: CommandModule<object, MountArguments> = {
  command: 'mount <prefix..>',
  describe: 'Mount prefixes and send every caller to its own tree',
  builder: (yargs) =>
    yargs
      .positional('prefix', {
        type: 'string',
        array: true,
        demandOption: true,
        describe:
          'PREFIX[=SUBDIR]: what to mount over, and where in an entry’s directory its tree is (default local; . for the directory itself)',
      })
      .option('scoreboard', {
        type: 'string',
        requiresArg: true,
        demandOption: true,
        describe: 'Root’s directory of links UID -> DIRECTORY, looked at on every call',
        coerce: onePath('scoreboard'),
      })
      .option('unmapped', {
        type: 'string',
        requiresArg: true,
        describe: 'Directory that uids without an entry see (default: what the mount covers)',
        coerce: onePath('unmapped'),
      })
      .option('cache', {
        choices: ['auto', 'none'] as const,
        default: 'auto' as const,
        describe: 'Whether the kernel may remember names below the prefix (none: as on macOS)',
      })
      .option('backing', {
        choices: BACKINGS,
        default: 'auto' as const,
        describe:
          'How files are known while they are not open: by file handles, a descriptor each, or their paths',
      })
      .option('map-owner', {
        type: 'boolean',
        default: false,
        describe: 'Show the files of a tree’s owner as the caller’s, and create files as the owner',
      })
      .option('o', {
        type: 'string',
        nargs: 1,
        default: [] as string[],
        describe:
          'Mount options, as mount(8) has them (default allow_other,default_permissions,nosuid,nodev)',
        coerce: (given: string | string[]) => [given].flat(),
      })
      .option('daemon', {
        type: 'boolean',
        default: false,
        describe: 'Return once every mount answers, and serve on in the background',
      })
      .option('state-dir', stateDirOption)
      .option('leased', { type: 'boolean', default: false, hidden: true })
      .example('$0 mount /usr/local --scoreboard /var/lib/obuilder-fs/scoreboard', 'serve until Ctrl-C')
      .example(
        '$0 mount /usr/local /home/mac7000=. --scoreboard S --daemon',
        'two prefixes, in the background',
      ),
  handler: async (argv) => {
    process.exitCode = await (argv.daemon ? daemonise(argv) : runMount(requestOf(argv)));
  },
};

function requestOf(argv: MountArguments): MountRequest {
  return {
    prefixes: argv.prefix.map(parsePrefixRequest),
    scoreboard: argv.scoreboard,
    unmapped: argv.unmapped,
    cache: argv.cache,
    mapOwner: argv['map-owner'],
    backing: argv.backing,
    mountOptions: argv.o,
    stateDir: argv['state-dir'],
    isLeased: argv.leased,
  };
}

/** Serves until the mounts are gone: by a signal, or because somebody unmounted them. */
async function runMount(request: MountRequest): Promise<number> {
  let served: ServedMounts;
  try {
    served = await serveMounts(request);
  } catch (error) {
    if (process.send === undefined || !(error instanceof ObuilderError)) throw error;
    tellStarter({
      type: 'failed',
      code: error.code,
      message: error.message,
      ...(error.hint && { hint: error.hint }),
    });
    return 1;
  }
  endOnSignals(served);
  if (process.send === undefined) {
    const prefixes = served.records.map(({ prefix }) => prefix).join(', ');
    console.log(`obuilder-fs: serving ${prefixes} (scoreboard ${request.scoreboard}, pid ${process.pid})`);
  }
  tellStarter({ type: 'ready' });
  await served.ended;
  return EXIT_OK;
}

function tellStarter(message: MountMessage): void {
  process.send?.(message, undefined, undefined, () => {
    if (process.connected) process.disconnect();
  });
}

function endOnSignals(served: ServedMounts): void {
  let isEnding = false;
  const end = () => {
    const busy = served.unmount(isEnding);
    // With this process its connections go: whoever still uses a hidden mount gets errors.
    if (isEnding && busy.length > 0) process.exit(EXIT_OK);
    isEnding = true;
    for (const prefix of busy) {
      console.error(
        `obuilder-fs: ${prefix} is out of sight but still in use; it ends with its last user, or at once on a second signal`,
      );
    }
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, end);
}

/** Starts the same command in the background and answers when its mounts do. */
async function daemonise(argv: MountArguments): Promise<number> {
  checkRoot('mounting');
  const request = requestOf(argv);
  const [first] = request.prefixes;
  const prefix = await canonicalPrefix(first?.prefix ?? '');
  const { log } = prefixFiles(createRunDirectory(argv['state-dir']), prefix);
  const pid = await startInBackground([...programArgv(), ...mountArguments(argv)], log);
  const prefixes = request.prefixes.map((one) => one.prefix).join(', ');
  console.log(`obuilder-fs: serving ${prefixes} (scoreboard ${argv.scoreboard}, pid ${pid})`);
  return EXIT_OK;
}

/** The command line that asks for the same mounts in the foreground. Also what `obuilderfs` starts. */
export function mountArguments(argv: Omit<MountArguments, 'daemon' | 'leased'>): string[] {
  return [
    'mount',
    ...argv.prefix.map((prefix) => resolveRequest(prefix)),
    `--scoreboard=${argv.scoreboard}`,
    ...(argv.unmapped === undefined ? [] : [`--unmapped=${argv.unmapped}`]),
    `--cache=${argv.cache}`,
    ...(argv['map-owner'] ? ['--map-owner'] : []),
    `--backing=${argv.backing}`,
    ...argv.o.map((options) => `-o=${options}`),
    `--state-dir=${argv['state-dir']}`,
  ];
}

// The background process starts in /: prefixes must be absolute.
function resolveRequest(argument: string): string {
  const { prefix, subdirectory } = parsePrefixRequest(argument);
  return `${prefix}=${subdirectory || '.'}`;
}
