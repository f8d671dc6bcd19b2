import type { CommandModule } from 'yargs';
import type { BuildResult } from '../../builder/builder.ts';
import type { ObuilderVersion } from '../../builder/obuilder-version.ts';
import { checkRoot } from '../../fs/prefix-path.ts';
import type { DiskSpace } from '../../store/store-space.ts';
import { createBuildPrinter } from '../build-output.ts';
import { composeBuildHost } from '../compose.ts';
import { EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK } from '../exit-codes.ts';
import { hostOptionsOf, withHostFlags, type HostArguments } from '../host-options.ts';
import { interruption } from '../interruption.ts';
import { bytesOf, storeUseFlags, type StoreUseArguments } from '../space-options.ts';
import { checkOnFailure, failureHandler, onFailureOption, type OnFailure } from '../on-failure.ts';
import { copyingPrinter } from '../progress-line.ts';
import { stepLimitFlags, type StepLimitArguments } from '../step-limit-options.ts';
import { idsOption, readContext, readSecrets, readSpec, secretOption } from '../spec-inputs.ts';
import { terminalText } from '../terminal-text.ts';

interface BuildArguments extends HostArguments, StoreUseArguments, StepLimitArguments {
  f: string;
  context: string;
  ids: ObuilderVersion;
  secret: string[];
  'on-failure': OnFailure;
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
      .option('secret', secretOption)
      .option('ids', idsOption)
      .option('on-failure', onFailureOption)
      .options(storeUseFlags)
      .options(stepLimitFlags)
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
  checkOnFailure(argv['on-failure']);
  const spec = readSpec(argv.f);
  const request = {
    sourceDirectory: readContext(argv.context),
    secrets: readSecrets(argv.secret),
    emit: createBuildPrinter({ out: process.stdout, progress: process.stderr }),
    signal: interruption(),
    ids: argv.ids,
  };
  const host = await composeBuildHost(hostOptionsOf(argv, argv), storeUseOf(argv));
  try {
    const onFailure = failureHandler(argv['on-failure'], host, request.signal);
    return report(await host.builder.build(spec, { ...request, onFailure }));
  } finally {
    await host.close();
  }
}

function storeUseOf({ sync, 'prune-threshold': threshold }: StoreUseArguments) {
  const copying = copyingPrinter();
  if (threshold === undefined) return { sync, copying };
  const freeBytesMin = (space: DiskSpace) => bytesOf(threshold, space);
  const removed = (id: string) => console.error(`obuilder-fs: removed ${id} to make room`);
  return { sync, copying, autoPrune: { freeBytesMin, removed } };
}

function report(result: BuildResult): number {
  switch (result.status) {
    case 'saved':
    case 'loaded':
      console.log(`Got: "${result.id}"`);
      return EXIT_OK;
    case 'failed':
      console.error(
        terminalText(
          `Build step failed: ${result.message}${result.hint === undefined ? '' : `; ${result.hint}`}`,
        ),
      );
      return EXIT_FAILURE;
    case 'cancelled':
      console.error('obuilder-fs: cancelled');
      return EXIT_INTERRUPTED;
  }
}
