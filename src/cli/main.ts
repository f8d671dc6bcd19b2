#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import yargs, { type CommandModule } from 'yargs';
import { hideBin } from 'yargs/helpers';
import { buildCommand } from './commands/build.ts';
import { cleanCommand } from './commands/clean.ts';
import { deleteCommand } from './commands/delete.ts';
import { dockerfileCommand } from './commands/dockerfile.ts';
import { execCommand } from './commands/exec.ts';
import { flushCommand } from './commands/flush.ts';
import { healthcheckCommand } from './commands/healthcheck.ts';
import { logCommand } from './commands/log.ts';
import { mountCommand } from './commands/mount.ts';
import { pruneCommand } from './commands/prune.ts';
import { scoreboardCommand } from './commands/scoreboard.ts';
import { shellCommand } from './commands/shell.ts';
import { specCommand } from './commands/spec.ts';
import { statusCommand } from './commands/status.ts';
import { storeCommand } from './commands/store.ts';
import { unmountCommand } from './commands/unmount.ts';
import { usersCommand } from './commands/users.ts';
import { EXIT_USAGE } from './exit-codes.ts';
import { exitCodeOf, printError } from './print-error.ts';
import { UsageError, usageError, usageStrings } from './wrong-usage.ts';

const COMMANDS = [
  buildCommand,
  specCommand,
  dockerfileCommand,
  healthcheckCommand,
  logCommand,
  shellCommand,
  storeCommand,
  deleteCommand,
  pruneCommand,
  cleanCommand,
  flushCommand,
  mountCommand,
  unmountCommand,
  statusCommand,
  scoreboardCommand,
  usersCommand,
  execCommand,
] as CommandModule[];

function packageVersion(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

/** Runs one command line; resolves to its exit code. */
async function main(args: string[]): Promise<number> {
  const isVerbose = args.includes('--verbose');
  const parser = yargs(args)
    .scriptName('obuilder-fs')
    .usage(
      '$0 <command> [options]\n\nGives every build user its own copy of a prefix such as /usr/local, and builds OBuilder specs as those users.',
    )
    .command(COMMANDS)
    .option('verbose', { type: 'boolean', default: false, describe: 'Show where an error came from' })
    .demandCommand(1, 'name a command')
    .updateStrings(usageStrings as Record<string, string>)
    .recommendCommands()
    .strict()
    .parserConfiguration({
      'populate--': true,
      'camel-case-expansion': true,
      'parse-positional-numbers': false,
    })
    .version(packageVersion())
    .help()
    .wrap(Math.min(110, process.stdout.columns || 110))
    .exitProcess(false)
    .fail((message: string | undefined, error: Error | undefined) => {
      if (error !== undefined && error.name !== 'YError') throw error;
      const lines = COMMANDS.map(({ command }) => command);
      throw usageError(message ?? error?.message ?? 'wrong usage', args, lines);
    });
  try {
    await parser.parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof UsageError) {
      printError(error, { isVerbose });
      return EXIT_USAGE;
    }
    printError(error, { isVerbose });
    return exitCodeOf(error);
  }
}

// A wait for somebody else's lock must not keep the process: its exit code is known now.
process.exit(await main(hideBin(process.argv)));
