import type { CommandModule } from 'yargs';
import type { BuildResult } from '../../builder/builder.ts';
import type { ObuilderVersion } from '../../builder/obuilder-version.ts';
import { checkRoot } from '../../fs/prefix-path.ts';
import type { CopyProgress } from '../../store/copy-progress.ts';
import type { DiskSpace } from '../../store/store-space.ts';
import { createBuildPrinter } from '../build-output.ts';
import { composeBuildHost } from '../compose.ts';
import { EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK } from '../exit-codes.ts';
import { hostOptionsOf, withHostFlags, type HostArguments } from '../host-options.ts';
import { interruption } from '../interruption.ts';
import { bytesOf, storeUseFlags, type StoreUseArguments } from '../space-options.ts';
import { createProgress, type Progress } from '../progress-line.ts';
import { stepLimitFlags, type StepLimitArguments } from '../step-limit-options.ts';
import { idsOption, readContext, readSecrets, readSpec, secretOption } from '../spec-inputs.ts';
import { terminalText } from '../terminal-text.ts';

interface BuildArguments extends HostArguments, StoreUseArguments, StepLimitArguments {
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
      .option('secret', secretOption)
      .option('ids', idsOption)
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
    return report(await host.builder.build(spec, request));
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

/** One line for the copies under way; where several are, it shows them in turn. */
function copyingPrinter(): (progress: CopyProgress | undefined) => void {
  let shown: Progress | undefined;
  return (progress) => {
    if (progress === undefined) {
      shown?.end();
      shown = undefined;
      return;
    }
    const { done, total } = progress;
    shown ??= createProgress('copying files', { items: total.files, bytes: total.bytes });
    shown.note(undefined, { items: done.files, bytes: done.bytes });
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
