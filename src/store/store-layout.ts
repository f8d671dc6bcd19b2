import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { ObuilderError } from '../errors.ts';

/**
 * Where everything lies under a store's root. The directories are OBuilder's; `state/locks` and the names that start with a dot
 * or with `previous-` are ours.
 */
export class StoreLayout {
  readonly root: string;
  readonly results: string;
  readonly resultsTmp: string;
  readonly caches: string;
  readonly cachesTmp: string;
  readonly state: string;
  readonly locks: string;
  /** Held shared by every open store: whoever gets it exclusively is alone. */
  readonly storeLock: string;
  /** Held while opening: being alone stays true for as long as the opener needs it, and nobody works on what is not in order yet. */
  readonly openLock: string;
  /** Passed through by every step that begins: who holds it keeps steps from beginning. */
  readonly gateLock: string;
  /** Held shared by every step that is being made: whoever gets it exclusively knows that there is none. */
  readonly stepsLock: string;
  readonly reserve: string;
  readonly indexDirectory: string;
  readonly index: string;

  constructor(root: string) {
    this.root = root;
    this.results = join(root, 'result');
    this.resultsTmp = join(root, 'result-tmp');
    this.caches = join(root, 'cache');
    this.cachesTmp = join(root, 'cache-tmp');
    this.state = join(root, 'state');
    this.locks = join(this.state, 'locks');
    this.storeLock = join(this.state, 'store.lock');
    this.openLock = join(this.state, 'open.lock');
    this.gateLock = join(this.state, 'gate.lock');
    this.stepsLock = join(this.state, 'steps.lock');
    this.reserve = join(this.state, 'reserve');
    this.indexDirectory = join(this.state, 'db');
    this.index = join(this.indexDirectory, 'db.sqlite');
  }

  /** Every directory of the store, parents first. */
  directories(): string[] {
    return [
      this.root,
      this.results,
      this.resultsTmp,
      this.caches,
      this.cachesTmp,
      this.state,
      this.locks,
      this.indexDirectory,
    ];
  }

  result(id: string): string {
    return join(this.results, checkedId(id));
  }

  resultTmp(id: string): string {
    return join(this.resultsTmp, checkedId(id));
  }

  resultLock(id: string): string {
    return join(this.locks, `result-${checkedId(id)}`);
  }

  /** Where the tree of a failed step is kept: where unfinished results are, under a name that nothing else has there. */
  failedTree(id: string): string {
    return join(this.resultsTmp, `${FAILED_PREFIX}${checkedId(id)}`);
  }

  failedTreeLock(id: string): string {
    return join(this.locks, `${FAILED_PREFIX}${checkedId(id)}`);
  }

  cache(escapedName: string): string {
    return join(this.caches, escapedName);
  }

  /** Where OBuilder's rsync store keeps the same cache: under its name as it is. Undefined for a name that it cannot have had there. */
  obuilderCache(escapedName: string): string | undefined {
    const name = escapedName.slice(CACHE_PREFIX.length);
    const isPlain = !name.includes('%') && !/^\.*$/.test(name) && !name.startsWith(CACHE_PREFIX);
    return isPlain ? join(this.caches, name) : undefined;
  }

  /** Where a cache's old content waits while the new one is put in its place. */
  previousCache(escapedName: string): string {
    return join(this.cachesTmp, `previous-${escapedName}`);
  }

  cacheCopy(number: number, escapedName: string): string {
    return join(this.cachesTmp, `${number}-${escapedName}`);
  }

  cacheLock(escapedName: string): string {
    return join(this.locks, `cache-${escapedName}`);
  }

  /** Held by whoever uses the copy `cacheTmpName` (its name in cache-tmp). */
  cacheCopyLock(cacheTmpName: string): string {
    return join(this.locks, `copy-${cacheTmpName}`);
  }
}

const FAILED_PREFIX = 'failed-';

/** The id of the failed step whose tree has this name in result-tmp; undefined for any other name. */
export function failedTreeId(name: string): string | undefined {
  const id = name.slice(FAILED_PREFIX.length);
  return name.startsWith(FAILED_PREFIX) && isResultId(id) ? id : undefined;
}

const ID = /^[0-9a-f]{64}$/;

export function isResultId(name: string): boolean {
  return ID.test(name);
}

/** Ids become paths, and people type them. */
function checkedId(id: string): string {
  if (isResultId(id)) return id;
  throw new ObuilderError('INVALID_ID', `${JSON.stringify(id)}: not the id of a result`, {
    hint: 'an id is the 64 hexadecimal digits that a build prints after "saved as" or "Got:"',
  });
}

const CACHE_PREFIX = 'c-';

/** Leaves room for the prefixes above in a file name of 255 bytes. */
const ESCAPED_LENGTH_MAX = 200;

/**
 * A cache's name as a file name, as OBuilder escapes it for its other stores: different names stay different.
 * One too long for a file name ends in its hash instead; `%%` occurs in no other escaped name.
 */
export function escapeCacheName(name: string): string {
  const escaped = [...Buffer.from(name, 'utf8')].map(escapeByte).join('');
  if (escaped.length <= ESCAPED_LENGTH_MAX) return `${CACHE_PREFIX}${escaped}`;
  return `${CACHE_PREFIX}${escaped.slice(0, 100)}%%${createHash('sha256').update(name).digest('hex')}`;
}

function escapeByte(byte: number): string {
  const character = String.fromCharCode(byte);
  return /[A-Za-z0-9._-]/.test(character) ? character : `%${byte.toString(16)}`;
}
