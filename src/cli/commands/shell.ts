import type { CommandModule } from 'yargs';
import { lookAtResult } from '../../builder/shell.ts';
import { checkRoot } from '../../fs/prefix-path.ts';
import { checkStoreExists, composeBuildHost } from '../compose.ts';
import { hostOptionsOf, withHostFlags, type HostArguments } from '../host-options.ts';
import { interruption } from '../interruption.ts';
import { copyingPrinter } from '../progress-line.ts';
import { shellExitCode, shellRequest } from '../shell-request.ts';
import { stepLimitFlags, type StepLimitArguments } from '../step-limit-options.ts';
import { idPositional } from '../stored-result.ts';

interface ShellArguments extends HostArguments, Pick<StepLimitArguments, 'memory' | 'processes'> {
  id: string;
  '--'?: string[];
}

const { memory, processes } = stepLimitFlags;

export const shellCommand: CommandModule<object, ShellArguments> = {
  command: 'shell <id>',
  describe:
    'Look at a result, or at what build --on-failure=keep has kept: a shell, or a command, as a build user in a copy that is discarded',
  builder: (yargs) =>
    withHostFlags(yargs)
      .positional('id', idPositional)
      .options({ memory, processes })
      .example('$0 shell ID', 'a shell as the next step would meet it; what it changes is discarded')
      .example(
        '$0 shell ID -- ls -l local/bin',
        'one command; both its streams on standard output, its exit status',
      )
      .example('echo "opam list" | $0 shell ID', 'commands from standard input'),
  handler: async (argv) => {
    checkRoot('a shell');
    process.exitCode = await runShell(argv);
  },
};

async function runShell(argv: ShellArguments): Promise<number> {
  const noLimit = { 'step-timeout': 'none', 'max-output': 'none' };
  const options = hostOptionsOf(argv, { ...argv, ...noLimit });
  checkStoreExists(options.store);
  const host = await composeBuildHost(options, { copying: copyingPrinter() });
  try {
    console.error(`obuilder-fs: in a copy of ${argv.id}: what is changed is discarded afterwards`);
    return shellExitCode(await lookAtResult(host, argv.id, shellRequest(argv['--'] ?? [], interruption())));
  } finally {
    await host.close();
  }
}
