import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BuildLog, savedLog, type LogReader } from '../../src/builder/build-log.ts';
import { gate, never } from '../contracts/store-contract.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'log-'));
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

const noFailure = (cause: unknown) => {
  throw cause as Error;
};

/** Reads a log to its end, calling `heard` with all there is after each chunk. */
async function readAll(
  read: LogReader,
  signal = never,
  heard: (text: string) => void = () => undefined,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  await read((chunk) => {
    expect(chunk.length).toBeGreaterThan(0);
    expect(chunk.length).toBeLessThanOrEqual(4096);
    chunks.push(chunk);
    heard(Buffer.concat(chunks).toString());
  }, signal);
  return Buffer.concat(chunks);
}

describe('the log of a running step', () => {
  it('is heard whole by early and late readers, also after its file was renamed', async () => {
    const path = join(root, 'log');
    const log = await BuildLog.create(path, noFailure);
    const heardOne = gate();
    const early = readAll(log.read, never, (text) => {
      if (text === 'one') heardOne.open();
    });
    log.write(Buffer.from('one'));
    await heardOne.opened;
    const late = readAll(log.read);
    renameSync(path, join(root, 'moved'));
    log.write(Buffer.from('two'));
    log.finish();
    expect((await early).toString()).toBe('onetwo');
    expect((await late).toString()).toBe('onetwo');
    expect((await readAll(log.read)).toString()).toBe('onetwo');
    expect(readFileSync(join(root, 'moved'), 'utf8')).toBe('onetwo');
    await log.close();
  });

  it('is handed on in pieces of at most 4096 bytes', async () => {
    const log = await BuildLog.create(join(root, 'log'), noFailure);
    const data = Buffer.alloc(1_000_000, 'abc');
    log.write(data);
    log.finish();
    expect((await readAll(log.read)).equals(data)).toBe(true);
    await log.close();
  });

  it('is not read on by a reader whose signal fires', async () => {
    const log = await BuildLog.create(join(root, 'log'), noFailure);
    const cancel = new AbortController();
    const reading = readAll(log.read, cancel.signal, () => cancel.abort());
    log.write(Buffer.from('one'));
    expect((await reading).toString()).toBe('one');
    log.write(Buffer.from('two'));
    await log.close();
  });

  it('reports a failing write once and does not throw', async () => {
    const failures: unknown[] = [];
    const log = await BuildLog.create(join(root, 'log'), (cause) => failures.push(cause));
    await log.close();
    log.write(Buffer.from('one'));
    log.write(Buffer.from('two'));
    expect(failures).toHaveLength(1);
    expect(failures[0]).toBeInstanceOf(Error);
  });
});

describe('a saved log', () => {
  it('is handed over in pieces that stay as they are', async () => {
    const data = Buffer.alloc(300_000, 'line\n');
    writeFileSync(join(root, 'log'), data);
    expect((await readAll(savedLog(join(root, 'log')))).equals(data)).toBe(true);
  });

  it('is empty when there is no file', async () => {
    expect((await readAll(savedLog(join(root, 'missing')))).length).toBe(0);
  });

  it('ends when the signal fires', async () => {
    writeFileSync(join(root, 'log'), Buffer.alloc(300_000));
    const cancel = new AbortController();
    const heard = await readAll(savedLog(join(root, 'log')), cancel.signal, () => cancel.abort());
    expect(heard.length).toBe(4096);
  });
});
