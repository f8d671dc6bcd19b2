import type { CommandModule } from 'yargs';
import { checkRoot } from '../../fs/prefix-path.ts';
import { composeBuildHost } from '../compose.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { hostOptionsOf, withHostFlags, type HostArguments } from '../host-options.ts';
import { interruption } from '../interruption.ts';

export const healthcheckCommand: CommandModule<object, HostArguments> = {
  command: 'healthcheck',
  describe: 'Run one small step as a build would, to see that this machine can build',
  builder: (yargs) =>
    withHostFlags(yargs).example('$0 healthcheck', 'build user, mount and store: all that a step needs'),
  handler: async (argv) => {
    checkRoot('building');
    process.exitCode = await runHealthcheck(argv);
  },
};

async function runHealthcheck(argv: HostArguments): Promise<number> {
  const host = await composeBuildHost(hostOptionsOf(argv));
  try {
    const health = await host.healthcheck(interruption());
    if (health.status === 'passed') console.log('Healthcheck passed');
    else console.error(`Healthcheck failed: ${health.message}`);
    return health.status === 'passed' ? EXIT_OK : EXIT_FAILURE;
  } finally {
    await host.close();
  }
}
