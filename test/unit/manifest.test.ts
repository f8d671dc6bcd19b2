import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { manifestSexp, readManifest } from '../../src/builder/manifest.ts';
import { ObuilderError } from '../../src/errors.ts';
import { byteStringOf, type ByteString } from '../../src/spec/byte-string.ts';
import { printMach } from '../../src/spec/sexp.ts';
import { unpackSourceTree, vectors } from '../helpers/vectors.ts';

let scratch: string;
let sourceDirectory: string;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'manifest-'));
  sourceDirectory = unpackSourceTree(scratch);
});
afterAll(() => {
  rmSync(scratch, { recursive: true });
});

function read(src: string, exclude: readonly string[] = [], directory = sourceDirectory) {
  return readManifest({
    sourceDirectory: directory,
    src: byteStringOf(src),
    exclude: exclude.map(byteStringOf),
  });
}

async function refusal(src: string, directory = sourceDirectory): Promise<ObuilderError> {
  const error: unknown = await read(src, [], directory).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ObuilderError);
  expect((error as ObuilderError).code).toBe('BAD_SOURCE');
  expect((error as ObuilderError).hint).toBeDefined();
  return error as ObuilderError;
}

describe('golden manifests', () => {
  it.each(vectors.manifests)('$src without $exclude', async ({ src, exclude, result }) => {
    if ('ok' in result) expect(printMach(manifestSexp(await read(src, exclude)))).toBe(result.ok);
    else expect((await refusal(src)).message).toBe(result.error);
  });
});

describe('refusals', () => {
  it.each([
    ['nowhere', 'Source path "nowhere" not found'],
    ['dir/nowhere/x', 'Source path "dir/nowhere/x" not found'],
    ['dir/../hello.txt', 'Can\'t use .. in source paths! (in "dir/../hello.txt")'],
    ['hello.txt/', 'Not a directory: hello.txt (in "hello.txt/")'],
    ['dir/a.txt/x', 'Not a directory: a.txt/dir (in "dir/a.txt/x")'],
    ['link-dir/', 'Not a regular file: link-dir (in "link-dir/")'],
    ['special', 'Unsupported file type for "special/pipe"'],
    ['é', 'Source path "\\195\\169" not found'],
  ])('%s', async (src, message) => {
    expect((await refusal(src)).message).toBe(message);
  });

  it('a source directory that does not exist', async () => {
    expect((await refusal('.', join(scratch, 'none'))).message).toBe('Source path "" not found');
  });

  it('an aborted signal stops the walk', async () => {
    const signal = AbortSignal.abort();
    const request = { sourceDirectory, src: byteStringOf('dir'), exclude: [], signal };
    await expect(readManifest(request)).rejects.toThrow(signal.reason as Error);
  });
});

describe('reading', () => {
  it('names and targets are bytes, in byte order, whatever they encode', async () => {
    const directory = Buffer.from(join(scratch, 'bytes'));
    mkdirSync(directory);
    const at = (name: Buffer) => Buffer.concat([directory, Buffer.from('/'), name]);
    for (const name of [Buffer.from([0xff, 0xfe]), Buffer.from('é'), Buffer.from('z')])
      writeFileSync(at(name), '');
    symlinkSync(Buffer.from([0x80]), at(Buffer.from('link')));
    const manifest = await read('', [], directory.toString());
    expect(manifest.kind === 'directory' && manifest.children.map(({ path }) => path)).toEqual([
      'link',
      'z',
      '\xc3\xa9',
      '\xff\xfe',
    ]);
    expect(manifest.kind === 'directory' && manifest.children[0]).toMatchObject({ target: '\x80' });
  });

  it('a source may be named by bytes that are no UTF-8', async () => {
    const directory = join(scratch, 'named');
    mkdirSync(directory);
    writeFileSync(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff])]), 'x');
    const src = '\xff' as ByteString;
    await expect(readManifest({ sourceDirectory: directory, src, exclude: [] })).resolves.toMatchObject({
      kind: 'file',
      path: '\xff',
      size: 1,
    });
  });

  it.each([0, 1, 128 * 1024, 128 * 1024 + 1, 1024 * 1024, 3 * 1024 * 1024 + 5])(
    'hashes all of a file of %i bytes',
    async (size) => {
      const content = Buffer.alloc(size, 'abcdefg');
      writeFileSync(join(scratch, 'file'), content);
      expect(await read('file', [], scratch)).toEqual({
        kind: 'file',
        path: 'file',
        size,
        sha256: createHash('sha256').update(content).digest('hex'),
      });
    },
  );

  it.skipIf(process.platform !== 'linux')('what a file holds counts, not what size it claims', async () => {
    expect(statSync('/proc/version').size).toBe(0);
    const content = readFileSync('/proc/version');
    expect(await read('version', [], '/proc')).toMatchObject({
      size: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
    });
  });

  describe('many small files', () => {
    const count = 3000;
    let directory: string;

    beforeAll(() => {
      directory = join(scratch, 'many');
      mkdirSync(directory);
      for (let i = 0; i < count; i++) writeFileSync(join(directory, String(i)), String(i));
    });

    it('leave room for other work', async () => {
      const reading = { isOver: false };
      const manifest = read('', [], directory).finally(() => (reading.isOver = true));
      let turns = 0;
      for (; !reading.isOver; turns++) await setImmediate();
      expect(turns).toBeGreaterThan(3);
      expect(await manifest).toMatchObject({ children: { length: count } });
    });

    it('can be aborted in the middle', async () => {
      const abort = new AbortController();
      const manifest = readManifest({
        sourceDirectory: directory,
        src: '' as ByteString,
        exclude: [],
        signal: abort.signal,
      });
      const failure = expect(manifest).rejects.toThrow('enough');
      await setImmediate();
      abort.abort(new Error('enough'));
      await failure;
    });
  });

  it('excluded names are left out at every level, as whole names only', async () => {
    const manifest = printMach(manifestSexp(await read('dir', ['sub', 'b', 'up'])));
    expect(manifest).toMatch(/a\.txt.*b\.txt/);
    expect(manifest).not.toMatch(/sub|up/);
  });
});
