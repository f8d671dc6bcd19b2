import { ObuilderError } from '../errors.ts';
import type { Store } from '../store/store.ts';

/** The argument that names a result. */
export const idPositional = {
  type: 'string',
  demandOption: true,
  describe: 'As printed after "saved as" or "Got:"',
} as const;

/** The directory of a result. @throws {ObuilderError} NO_SUCH_RESULT */
export async function directoryOfResult(store: Store, id: string): Promise<string> {
  const directory = await store.find(id);
  if (directory !== undefined) return directory;
  throw new ObuilderError('NO_SUCH_RESULT', `${id}: no such result in the store`, {
    hint: 'see: obuilder-fs store list',
  });
}
