import { readdirSync, statSync } from 'node:fs';
import { errnoCode, ObuilderError } from '../errors.ts';
import { failedTreeId, type StoreLayout } from './store-layout.ts';
import { tryLock } from './store-locks.ts';
import { discard, isDirectory, type StoreParts } from './store-parts.ts';

/** Who builds until a spec is right leaves one for each try. */
const COUNT_MAX = 8;

export interface FailedTree {
  readonly id: string;
  readonly keptAt: Date;
}

/** Those that are kept, the oldest first. */
export function failedTrees(layout: StoreLayout): FailedTree[] {
  const ids = readdirSync(layout.resultsTmp).map(failedTreeId);
  return ids
    .flatMap((id) => (id === undefined ? [] : describe(layout, id)))
    .sort((a, b) => a.keptAt.getTime() - b.keptAt.getTime());
}

/** Moving it there was the last that happened to its directory. */
function describe(layout: StoreLayout, id: string): FailedTree[] {
  try {
    return [{ id, keptAt: statSync(layout.failedTree(id)).ctime }];
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return []; // removed meanwhile
    throw error;
  }
}

/** Store.keepFailed says what it promises. The caller holds the lock of the result. */
export async function keepFailedTree(parts: StoreParts, id: string): Promise<string | undefined> {
  const { layout, copier } = parts;
  const lock = tryLock(layout.failedTreeLock(id), 'exclusive');
  if (lock === undefined) return undefined;
  try {
    await discard(copier, layout.failedTree(id), layout.resultsTmp);
    await copier.move(layout.resultTmp(id), layout.failedTree(id));
  } finally {
    lock.release();
  }
  for (const { id: old } of failedTrees(layout).slice(0, -COUNT_MAX)) await removeFailedTree(parts, old);
  return layout.failedTree(id);
}

/** One that is being looked at stays. */
export async function removeFailedTree(
  { layout, copier, reserve }: StoreParts,
  id: string,
): Promise<'removed' | 'missing' | 'busy'> {
  if (!(await isDirectory(layout.failedTree(id)))) return 'missing';
  const lock = await reserve.spend(() => tryLock(layout.failedTreeLock(id), 'exclusive'));
  if (lock === undefined) return 'busy';
  try {
    await reserve.spend(() => discard(copier, layout.failedTree(id), layout.resultsTmp));
    return 'removed';
  } finally {
    lock.release();
  }
}

/** Whether there was one. @throws {ObuilderError} RESULT_BUSY */
export async function deleteFailedTree(parts: StoreParts, id: string): Promise<boolean> {
  const ending = await removeFailedTree(parts, id);
  if (ending !== 'busy') return ending === 'removed';
  throw new ObuilderError('RESULT_BUSY', `${id}: somebody is looking at what was kept of this failed step`, {
    hint: 'try again when the shell has ended',
  });
}

/** Removes those kept before `before`, the oldest first, as long as `wantsMore` says so; answers how many. */
export async function pruneFailedTrees(
  parts: StoreParts,
  before: Date,
  wantsMore: (count: number) => Promise<boolean>,
  removed: (id: string) => void = () => undefined,
): Promise<number> {
  let count = 0;
  for (const { id, keptAt } of failedTrees(parts.layout)) {
    if (keptAt >= before || !(await wantsMore(count))) break;
    if (!(await isRemoved(parts, id))) continue;
    count++;
    removed(id);
  }
  return count;
}

/** One that cannot be removed must not keep the results from being removed; `store verify` tells of what is left of it. */
async function isRemoved(parts: StoreParts, id: string): Promise<boolean> {
  try {
    return (await removeFailedTree(parts, id)) === 'removed';
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return false;
  }
}
