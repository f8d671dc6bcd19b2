import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { CommandModule } from 'yargs';
import { errnoCode } from '../../errors.ts';
import { openStore } from '../compose.ts';
import { storeOptionsOf, withStoreFlags, type StoreArguments } from '../host-options.ts';
import { createTerminalFilter } from '../terminal-text.ts';
import { directoryOfResult, idPositional } from '../stored-result.ts';

interface LogArguments extends StoreArguments {
  id: string;
}

export const logCommand: CommandModule<object, LogArguments> = {
  command: 'log <id>',
  describe: 'Print what the step of a result printed',
  builder: (yargs) => withStoreFlags(yargs).positional('id', idPositional),
  handler: async (argv) => {
    const store = await openStore(storeOptionsOf(argv));
    try {
      await print(join(await directoryOfResult(store, argv.id), 'log'));
    } finally {
      store.close();
    }
  },
};

/** Resolves when the last byte is gone, or when nobody reads any more; a log that is missing is empty. */
async function print(path: string): Promise<void> {
  try {
    const filter = process.stdout.isTTY ? [terminalTransform()] : [];
    await pipeline([createReadStream(path), ...filter, process.stdout], { end: false });
    await new Promise((resolve) => process.stdout.write('', resolve));
  } catch (error) {
    if (!['ENOENT', 'EPIPE'].includes(errnoCode(error) ?? '')) throw error;
  }
}

function terminalTransform(): Transform {
  const filter = createTerminalFilter();
  return new Transform({ transform: (chunk: Buffer, _, done) => done(null, filter(chunk)) });
}
