import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { CommandModule } from 'yargs';
import type { BuildResult } from '../../builder/builder.ts';
import type { ObuilderVersion } from '../../builder/obuilder-version.ts';
import { errnoCode, ObuilderError } from '../../errors.ts';
import { checkRoot } from '../../fs/prefix-path.ts';
import { parseSpec } from '../../spec/parse-spec.ts';
import { createBuildPrinter } from '../build-output.ts';
import { composeBuildHost } from '../compose.ts';
import { EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK } from '../exit-codes.ts';
import { hostOptionsOf, withHostFlags, type HostArguments } from '../host-options.ts';
import { interruption } from '../interruption.ts';

interface BuildArguments extends HostArguments {
  f: string;
  context: string;
  ids: ObuilderVersion;
  secret: string[];
}

export const buildCommand: CommandModule<object, BuildArguments> = {
  command: 'build <context>',
  describe: 'Build a spec step by step as a build user; finished steps come from the store',
  builder: (yargs) =>
    withHostFlags(yargs)
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
      .option('secret', {
        type: 'string',
        nargs: 1,
        default: [] as string[],
        describe: 'ID:FILE: the value of a secret that the spec asks for',
        coerce: (given: string | string[]) => [given].flat(),
      })
      .option('ids', {
        choices: ['head', 'v0.5'] as const,
        requiresArg: true,
        default: 'head' as const,
        describe: 'Whose ids name the results: the newest OBuilder’s, or v0.5’s, for a store that it filled',
      })
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
    ids: argv.ids,
  };
  const host = await composeBuildHost(hostOptionsOf(argv));
  try {
    return report(await host.builder.build(spec, request));
  } finally {
    await host.close();
  }
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
    // What was given may be the secret itself: it is not repeated.
    throw new ObuilderError('BAD_OPTION', '--secret: not ID:FILE', {
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
