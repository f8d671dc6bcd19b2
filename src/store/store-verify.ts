import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { errnoCode } from '../errors.ts';
import { createDirectoryStore, type DirectoryStoreOptions } from './directory-store.ts';
import { failedTreeId, isResultId, StoreLayout } from './store-layout.ts';
import { tryLock } from './store-locks.ts';
import { isDirectory, setAside } from './store-parts.ts';

/** Something in a store that is not as it should be. */
export interface StoreProblem {
  readonly kind:
    | 'index-damaged'
    | 'row-without-result'
    | 'result-without-row'
    | 'wrong-count'
    | 'result-damaged'
    | 'leftover'
    | 'stranger';
  /** Relative to the store, or a result's id. */
  readonly what: string;
  /** What is done about it. */
  readonly remedy: string;
  readonly isRepaired: boolean;
}

type Found = Omit<StoreProblem, 'isRepaired'>;

const REMEDIES = {
  'index-damaged': 'it is set aside and made anew from the results that are there',
  'row-without-result': 'the row is dropped',
  'result-without-row': 'a row is made',
  'wrong-count': 'the results made from it are counted again',
  'result-damaged': 'it is removed: a build makes it again',
  leftover: 'it is removed',
  stranger: 'nothing: it is not the store’s, move it away by hand',
} as const satisfies Record<StoreProblem['kind'], string>;

/**
 * Compares a store's index with what is on disk, and puts right what differs unless it is a dry run.
 * Others may use the store meanwhile: what they are at work on is not looked at.
 * @throws {ObuilderError} as opening the store does.
 */
export async function verifyStore(
  options: DirectoryStoreOptions,
  { dryRun }: { readonly dryRun: boolean },
): Promise<StoreProblem[]> {
  const layout = new StoreLayout(options.root);
  const found = await inspect(layout);
  if (dryRun) return found.map((problem) => ({ ...problem, isRepaired: false }));
  await repair(options, layout, found);
  const left = await inspect(layout);
  const isLeft = ({ kind, what }: Found) => left.some((one) => one.kind === kind && one.what === what);
  return found.map((problem) => ({ ...problem, isRepaired: !isLeft(problem) }));
}

/** Opening a store puts most of it right. */
async function repair(
  options: DirectoryStoreOptions,
  layout: StoreLayout,
  found: readonly Found[],
): Promise<void> {
  if (found.some(({ kind }) => kind === 'index-damaged')) await setIndexAside(layout);
  for (const { kind, what } of found) {
    if (kind === 'result-damaged') await setAside(options.copier, layout.result(what), layout.resultsTmp);
  }
  (await createDirectoryStore(options)).close();
}

async function setIndexAside({ index }: StoreLayout): Promise<void> {
  const suffix = `.damaged-${new Date().toISOString().replaceAll(':', '')}`;
  for (const path of [index, `${index}-wal`, `${index}-shm`]) {
    await rename(path, `${path}${suffix}`).catch((error: unknown) => {
      if (errnoCode(error) !== 'ENOENT') throw error;
    });
  }
}

async function inspect(layout: StoreLayout): Promise<Found[]> {
  const rows = readIndex(layout.index);
  const problems =
    rows === undefined ? [problem('index-damaged', 'state/db/db.sqlite')] : await inspectRows(layout, rows);
  return [...problems, ...(await inspectResults(layout)), ...(await inspectLeftovers(layout))];
}

interface Row {
  readonly id: string;
  readonly rc: number;
  readonly children: number;
}

/** Undefined when it is damaged; empty when there is none yet. */
function readIndex(path: string): Row[] | undefined {
  let db: Database.Database | undefined;
  try {
    db = new Database(path, { fileMustExist: true });
    if (db.pragma('integrity_check', { simple: true }) !== 'ok') return undefined;
    return db
      .prepare<[], Row>(
        'SELECT id, rc, (SELECT COUNT(*) FROM builds c WHERE c.parent = b.id) AS children FROM builds b ORDER BY id',
      )
      .all();
  } catch (error) {
    if (!(error instanceof Database.SqliteError)) throw error;
    return error.code === 'SQLITE_CANTOPEN' ? [] : undefined;
  } finally {
    db?.close();
  }
}

async function inspectRows(layout: StoreLayout, rows: readonly Row[]): Promise<Found[]> {
  const problems: Found[] = [];
  const indexed = new Set(rows.map(({ id }) => id));
  for (const { id, rc, children } of rows) {
    if (rc !== children) problems.push(problem('wrong-count', id));
    if (!isResultId(id) || (await isDirectory(layout.result(id))) || isBusy(layout, id)) continue;
    problems.push(problem('row-without-result', id));
  }
  for (const id of await namesIn(layout.results)) {
    if (isResultId(id) && !indexed.has(id) && !isBusy(layout, id))
      problems.push(problem('result-without-row', id));
  }
  return problems;
}

async function inspectResults(layout: StoreLayout): Promise<Found[]> {
  const problems: Found[] = [];
  for (const name of await namesIn(layout.results)) {
    if (!isResultId(name)) problems.push(problem('stranger', join('result', name)));
    else if (!isBusy(layout, name) && !(await isDirectory(join(layout.result(name), 'rootfs'))))
      problems.push(problem('result-damaged', name));
  }
  return problems;
}

async function inspectLeftovers(layout: StoreLayout): Promise<Found[]> {
  const results = (await namesIn(layout.resultsTmp)).filter(
    (name) => failedTreeId(name) === undefined && (!isResultId(name) || !isBusy(layout, name)),
  );
  const caches = (await namesIn(layout.cachesTmp)).filter((name) => !isLocked(layout.cacheCopyLock(name)));
  return [
    ...results.map((name) => problem('leftover', join('result-tmp', name))),
    ...caches.map((name) => problem('leftover', join('cache-tmp', name))),
  ];
}

function problem(kind: StoreProblem['kind'], what: string): Found {
  return { kind, what, remedy: REMEDIES[kind] };
}

/** Whoever has its lock is at work on it. */
function isBusy(layout: StoreLayout, id: string): boolean {
  return isLocked(layout.resultLock(id));
}

function isLocked(path: string): boolean {
  const lock = tryLock(path, 'shared');
  lock?.release();
  return lock === undefined;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return [];
    throw error;
  }
}
