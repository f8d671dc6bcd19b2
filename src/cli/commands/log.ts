import { join } from 'node:path';
import { once } from 'node:events';
import type { CommandModule } from 'yargs';
import { savedLog } from '../../builder/build-log.ts';
import { openStore } from '../compose.ts';
import { storeOptionsOf, withStoreFlags, type StoreArguments } from '../host-options.ts';
import { directoryOfResult } from '../stored-result.ts';

interface LogArguments extends StoreArguments {
  id: string;
}

export const logCommand: CommandModule<object, LogArguments> = {
  command: 'log <id>',
  describe: 'Print what the step of a result printed',
  builder: (yargs) =>
    withStoreFlags(yargs).positional('id', {
      type: 'string',
      demandOption: true,
      describe: 'As printed after "saved as" or "Got:"',
    }),
  handler: async (argv) => {
    const store = await openStore(storeOptionsOf(argv));
    try {
      await print(join(await directoryOfResult(store, argv.id), 'log'));
    } finally {
      store.close();
    }
  },
};

/** Waits for the last byte: a pipe takes what it is given later than the process may end. */
async function print(path: string): Promise<void> {
  await savedLog(path)((chunk) => process.stdout.write(chunk), new AbortController().signal);
  if (process.stdout.writableLength > 0) await once(process.stdout, 'drain');
}
