import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CommandModule } from 'yargs';
import type { BuildResult } from '../../builder/builder.ts';
import { errnoCode, ObuilderError } from '../../errors.ts';
import { checkRoot } from '../../fs/prefix-path.ts';
import type { PrefixMode } from '../../sandbox/prefix-view.ts';
import { parseSpec } from '../../spec/parse-spec.ts';
import { createBuildPrinter } from '../build-output.ts';
import { defaultPrefix, defaultScoreboard, stateDirOption } from '../common-options.ts';
import { composeBuildHost, type BuildHostOptions } from '../compose.ts';
import { EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK } from '../exit-codes.ts';

interface BuildArguments {
  f: string;
  context: string;
  store: string | undefined;
  uid: number;
  prefix: string;
  scoreboard: string | undefined;
  'base-dir': string | undefined;
  'home-path': string | undefined;
  'prefix-mode': PrefixMode;
  secret: string[];
  'state-dir': string;
}

const IS_MACOS = process.platform === 'darwin';

export const buildCommand: CommandModule<object, BuildArguments> = {
  command: 'build <context>',
  describe: 'Build a spec step by step as a build user; finished steps come from the store',
  builder: (yargs) =>
    yargs
      .positional('context', {
        type: 'string',
        demandOption: true,
        describe: 'Directory that (copy …) copies from',
      })
      .option('f', {
        alias: 'file',
        type: 'string',
        requiresArg: true,
        demandOption: true,
        describe: 'The spec; - reads standard input',
      })
      .option('store', {
        type: 'string',
        requiresArg: true,
        describe: 'Where results are kept: rsync:DIR (default rsync:STATE-DIR/store)',
      })
      .option('uid', {
        type: 'number',
        requiresArg: true,
        default: IS_MACOS ? 1000 : 7000,
        describe: 'The build user, made where missing',
      })
      .option('prefix', {
        alias: 'fuse-path',
        type: 'string',
        requiresArg: true,
        default: defaultPrefix(),
        describe: 'What steps see as their own tree',
        coerce: (path: string) => resolve(path),
      })
      .option('scoreboard', {
        type: 'string',
        requiresArg: true,
        describe: 'Root’s directory of links UID -> DIRECTORY (default STATE-DIR/scoreboard)',
        coerce: (path: string) => resolve(path),
      })
      .option('base-dir', {
        type: 'string',
        requiresArg: true,
        describe: `Directory of base images, what (from NAME) names (default ${IS_MACOS ? '/Users' : 'STATE-DIR/images'})`,
        coerce: (path: string) => resolve(path),
      })
      .option('home-path', {
        type: 'string',
        requiresArg: true,
        describe: `Where steps find their home (default ${IS_MACOS ? '/Users' : '/home'}/macUID)`,
        coerce: (path: string) => resolve(path),
      })
      .option('prefix-mode', {
        choices: ['tree', 'shared', 'bind', 'none'] as const,
        default: IS_MACOS ? ('shared' as const) : ('tree' as const),
        describe:
          'tree: the step’s own tree through the mount; shared: the mount as everybody meets it; bind: no mount; none: the machine’s prefix',
      })
      .option('secret', {
        type: 'string',
        nargs: 1,
        default: [] as string[],
        describe: 'ID:FILE: the value of a secret that the spec asks for',
        coerce: (given: string | string[]) => [given].flat(),
      })
      .option('state-dir', stateDirOption)
      .example(
        '$0 build -f examples/sqlite.spec node_modules/better-sqlite3/deps/sqlite3',
        'the main job of the README',
      ),
  handler: async (argv) => {
    checkRoot('building');
    process.exitCode = await runBuild(argv);
  },
};

async function runBuild(argv: BuildArguments): Promise<number> {
  const spec = parseSpec(readSpec(argv.f), argv.f);
  const request = {
    sourceDirectory: readContext(argv.context),
    secrets: readSecrets(argv.secret),
    emit: createBuildPrinter({ out: process.stdout, progress: process.stderr }),
    signal: interruption(),
  };
  const host = await composeBuildHost(hostOptions(argv));
  try {
    return report(await host.builder.build(spec, request));
  } finally {
    await host.close();
  }
}

function hostOptions(argv: BuildArguments): BuildHostOptions {
  const stateDir = argv['state-dir'];
  return {
    stateDir,
    store: argv.store ?? `rsync:${join(stateDir, 'store')}`,
    uid: argv.uid,
    homePath: argv['home-path'] ?? `${IS_MACOS ? '/Users' : '/home'}/mac${argv.uid}`,
    prefix: argv.prefix,
    prefixMode: argv['prefix-mode'],
    scoreboard: argv.scoreboard ?? defaultScoreboard(stateDir),
    baseDir: argv['base-dir'] ?? (IS_MACOS ? '/Users' : join(stateDir, 'images')),
  };
}

function report(result: BuildResult): number {
  switch (result.status) {
    case 'saved':
    case 'loaded':
      console.log(`Got: "${result.id}"`);
      return EXIT_OK;
    case 'failed':
      console.error(
        `Build step failed: ${result.message}${result.hint === undefined ? '' : `; ${result.hint}`}`,
      );
      return EXIT_FAILURE;
    case 'cancelled':
      console.error('obuilder-fs: cancelled');
      return EXIT_INTERRUPTED;
  }
}

/** Aborted by the first Ctrl-C or SIGTERM: the step is stopped and everything is given back. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort());
  return controller.signal;
}

function readSpec(file: string): Buffer {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (cause) {
    throw new ObuilderError(
      'SPEC_UNREADABLE',
      `spec ${file} cannot be read: ${errnoCode(cause) ?? 'unknown error'}`,
      {
        hint: 'name a file with -f, or - for standard input',
        cause,
      },
    );
  }
}

function readContext(directory: string): string {
  const path = resolve(directory);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return path;
  throw new ObuilderError('CONTEXT_MISSING', `context ${directory} is not a directory`, {
    hint: 'name the directory that the spec copies from',
  });
}

function readSecrets(given: readonly string[]): Map<string, Uint8Array> {
  return new Map(given.map(readSecret));
}

function readSecret(given: string): [string, Uint8Array] {
  const [, id, file] = /^([^:]+):(.+)$/s.exec(given) ?? [];
  if (id === undefined || file === undefined) {
    throw new ObuilderError('BAD_OPTION', `--secret=${given}: not ID:FILE`, {
      hint: 'as in --secret=token:/run/token',
    });
  }
  try {
    return [id, readFileSync(file)];
  } catch (cause) {
    throw new ObuilderError(
      'SECRET_UNREADABLE',
      `secret ${id}: ${file} cannot be read: ${errnoCode(cause) ?? 'unknown error'}`,
      {
        hint: 'name a file that root can read',
        cause,
      },
    );
  }
}
