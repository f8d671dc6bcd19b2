// npm run bench -- fs|spec|parallel|store    what is measured, and how to read it: docs/performance.md
import yargs, { type CommandModule } from 'yargs';
import { hideBin } from 'yargs/helpers';
import { ObuilderError } from '../../src/errors.ts';
import { fsCommand } from './fs.ts';
import { parallelCommand } from './parallel.ts';
import { specCommand } from './spec.ts';
import { storeCommand } from './store.ts';

const COMMANDS = [fsCommand, specCommand, parallelCommand, storeCommand] as CommandModule[];

try {
  await yargs(hideBin(process.argv))
    .scriptName('npm run bench --')
    .command(COMMANDS)
    .demandCommand(1, 'name a benchmark')
    .strict()
    .help()
    .fail((message, error) => {
      throw (error as Error | undefined) ?? new ObuilderError('BAD_USAGE', message, { hint: 'see --help' });
    })
    .parseAsync();
} catch (error) {
  if (!(error instanceof ObuilderError)) throw error;
  console.error(`bench: ${error.message}${error.hint === undefined ? '' : `\n  hint: ${error.hint}`}`);
  process.exitCode = 1;
}
