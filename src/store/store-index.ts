import Database from 'better-sqlite3';
import { ObuilderError } from '../errors.ts';
import type { ResultRecord } from './store.ts';

export interface IndexRow {
  readonly id: string;
  readonly parent: string | null;
  /** How many results were made from this one. */
  readonly rc: number;
}

const BUSY_TIMEOUT_MS = 10_000;

/**
 * What the store knows about results beyond their directories: when they were made and last used, and what they were made from.
 * Table and time format are OBuilder's. It decides what `prune` and `delete` take, never whether a result exists.
 * Several processes may have it open.
 */
export class StoreIndex {
  readonly #path: string;
  readonly #db: Database.Database;
  readonly #sync: boolean;

  /** Without `sync` no change waits for the disk. @throws {ObuilderError} STORE_INDEX, as every change does. */
  constructor(path: string, { sync = true }: { readonly sync?: boolean } = {}) {
    this.#path = path;
    this.#sync = sync;
    this.#db = openDatabase(path);
  }

  /** Records a result made now from `parent`, durably. Doing so again renews it. */
  add(id: string, parent: string | undefined, now: Date): void {
    const time = timestamp(now);
    this.#durably(() => {
      const before = this.#parent(id);
      this.#db
        .prepare(
          `INSERT INTO builds (id, created, used, rc, parent) VALUES (?, ?, ?, 0, ?)
           ON CONFLICT (id) DO UPDATE SET created = excluded.created, used = excluded.used, parent = excluded.parent`,
        )
        .run(id, time, time, parent ?? null);
      for (const changed of new Set([id, parent, before])) if (changed) this.#recount(changed);
    });
  }

  /** Notes that a result was used now. */
  touch(id: string, now: Date): void {
    this.#transaction(() => {
      this.#db.prepare('UPDATE builds SET used = ? WHERE id = ?').run(timestamp(now), id);
    });
  }

  children(id: string): string[] {
    return this.#db.prepare<[string], string>('SELECT id FROM builds WHERE parent = ?').pluck().all(id);
  }

  remove(id: string): void {
    this.#transaction(() => {
      const parent = this.#parent(id);
      this.#db.prepare('DELETE FROM builds WHERE id = ?').run(id);
      if (parent) this.#recount(parent);
    });
  }

  /** Results without children that were not used since `before`, the longest unused first. */
  unused(before: Date, limit: number): string[] {
    return this.#db
      .prepare<[string, number], string>(
        'SELECT id FROM builds WHERE rc = 0 AND used < ? ORDER BY used ASC, id ASC LIMIT ?',
      )
      .pluck()
      .all(timestamp(before), limit);
  }

  isUnused(id: string, before: Date): boolean {
    const found = this.#db
      .prepare('SELECT 1 FROM builds WHERE id = ? AND rc = 0 AND used < ?')
      .get(id, timestamp(before));
    return found !== undefined;
  }

  rows(): IndexRow[] {
    return this.#db.prepare<[], IndexRow>('SELECT id, parent, rc FROM builds').all();
  }

  /** Everything it knows, the longest unused first. */
  records(): ResultRecord[] {
    return this.#db
      .prepare<[], RecordRow>('SELECT id, parent, rc, created, used FROM builds ORDER BY used ASC, id ASC')
      .all()
      .map(recordOf);
  }

  /** Makes every `rc` the number of children there are. */
  recountAll(): void {
    this.#transaction(() => {
      const rows = this.rows();
      const children = new Map<string, number>();
      for (const { parent } of rows) if (parent) children.set(parent, (children.get(parent) ?? 0) + 1);
      for (const { id, rc } of rows) if (rc !== (children.get(id) ?? 0)) this.#recount(id);
    });
  }

  close(): void {
    this.#db.close();
  }

  #parent(id: string): string | null | undefined {
    return this.#db
      .prepare<[string], string | null>('SELECT parent FROM builds WHERE id = ?')
      .pluck()
      .get(id);
  }

  #recount(id: string): void {
    this.#db
      .prepare('UPDATE builds SET rc = (SELECT COUNT(*) FROM builds WHERE parent = ?) WHERE id = ?')
      .run(id, id);
  }

  /** In this mode, and only in it, a commit waits for the disk. Uses are noted in the other: losing some to a power failure is no harm. */
  #durably(change: () => void): void {
    if (this.#sync) this.#db.pragma('synchronous = FULL');
    try {
      this.#transaction(change);
    } finally {
      if (this.#sync) this.#db.pragma('synchronous = NORMAL');
    }
  }

  #transaction(change: () => void): void {
    try {
      this.#db.transaction(change).immediate();
    } catch (cause) {
      if (!(cause instanceof Database.SqliteError)) throw cause;
      throw new ObuilderError('STORE_INDEX', `${this.#path}: cannot be written: ${cause.message}`, {
        hint: 'free space on the disk of the store, or wait for the process that keeps it locked',
        cause,
      });
    }
  }
}

function openDatabase(path: string): Database.Database {
  let db: Database.Database | undefined;
  try {
    db = new Database(path, { timeout: BUSY_TIMEOUT_MS });
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = NORMAL');
    // OBuilder never enforces its foreign key, so its stores may hold rows whose parent is gone.
    db.pragma('foreign_keys = OFF');
    db.exec(SCHEMA);
    return db;
  } catch (cause) {
    db?.close();
    throw new ObuilderError('STORE_INDEX', `${path}: cannot be used: ${(cause as Error).message}`, {
      hint: 'if it is damaged, move it and its -wal and -shm files away: it is made anew from the results that are there',
      cause,
    });
  }
}

/** The statements make what OBuilder makes. */
const SCHEMA = `
  CREATE TABLE IF NOT EXISTS builds (
    id       TEXT PRIMARY KEY,
    created  DATETIME NOT NULL,
    used     DATETIME NOT NULL,
    rc       INTEGER NOT NULL,
    parent   TEXT,
    FOREIGN KEY (parent) REFERENCES builds (id) ON DELETE RESTRICT
  );
  CREATE INDEX IF NOT EXISTS lru ON builds (rc, used);
`;

interface RecordRow extends IndexRow {
  readonly created: string;
  readonly used: string;
}

function recordOf({ id, parent, rc, created, used }: RecordRow): ResultRecord {
  return {
    id,
    parent: parent ?? undefined,
    childCount: rc,
    createdAt: timeOf(created),
    usedAt: timeOf(used),
  };
}

/** `2026-01-31 23:59:59`, UTC. */
function timestamp(time: Date): string {
  return time.toISOString().slice(0, 19).replace('T', ' ');
}

function timeOf(timestamp: string): Date {
  return new Date(`${timestamp.replace(' ', 'T')}Z`);
}
