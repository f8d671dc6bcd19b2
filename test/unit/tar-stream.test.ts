import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { manifestSexp, readManifest, type Manifest } from '../../src/builder/manifest.ts';
import type { CopyContent } from '../../src/builder/step-id.ts';
import { tarStream, type TarRequest } from '../../src/builder/tar-stream.ts';
import { byteStringOf, type ByteString } from '../../src/spec/byte-string.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import { printMach } from '../../src/spec/sexp.ts';
import { unpackSourceTree, vectors } from '../helpers/vectors.ts';

const bytes = byteStringOf;
// Owners and the vectors' trees need root.
const isRoot = process.getuid?.() === 0;
const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

let scratch: string;
let source: string;
let target: string;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'tar-stream-'));
  source = join(scratch, 'source');
  target = join(scratch, 'target');
  mkdirSync(source);
  mkdirSync(target);
});
afterEach(() => {
  rmSync(scratch, { recursive: true });
});

/** Runs tar on an archive; answers what it printed. */
async function tar(args: readonly string[], archive: Readable): Promise<string> {
  const child = spawn('tar', args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, TZ: 'UTC', LC_ALL: 'C' },
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('latin1')));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString('latin1')));
  const ended = new Promise((resolve) => child.on('close', resolve));
  await pipeline(archive, child.stdin);
  expect(`${String(await ended)} ${output}`).toMatch(/^0 /);
  return output;
}

function extract(archive: Readable): Promise<string> {
  return tar(['-xf', '-', '-C', target], archive);
}

async function manifestOf(
  src: string,
  exclude: readonly ByteString[] = [],
  directory = source,
): Promise<Manifest> {
  return readManifest({ sourceDirectory: directory, src: bytes(src), exclude });
}

async function request(src: string, kind: CopyContent['kind'], destination: string): Promise<TarRequest> {
  const manifest = await manifestOf(src);
  const content: CopyContent = kind === 'item' ? { kind, manifest } : { kind, manifests: [manifest] };
  return { sourceDirectory: source, content, destination: bytes(destination), owner };
}

async function contentOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

interface Found {
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly mtime?: number;
  readonly target?: string;
}

/** What lies below `directory`, by path. */
function listing(directory: string, prefix = ''): Record<string, Found> {
  const found: Record<string, Found> = {};
  for (const name of readdirSync(join(directory, prefix))) {
    const path = join(prefix, name);
    const at = join(directory, path);
    const stat = lstatSync(at);
    found[path] = {
      mode: (stat.mode & 0o7777).toString(8).padStart(4, '0'),
      uid: stat.uid,
      gid: stat.gid,
      ...(stat.isFile() ? { mtime: stat.mtimeMs / 1000 } : {}),
      ...(stat.isSymbolicLink() ? { target: readlinkSync(at) } : {}),
    };
    if (stat.isDirectory()) Object.assign(found, listing(directory, path));
  }
  return found;
}

describe('golden copies', () => {
  const copies = vectors.builds.filter(
    ({ name, runs }) => name.startsWith('copy-') && runs.every(({ result }) => 'ok' in result),
  );

  it.skipIf(!isRoot).each(copies)('$name gives the tree that OBuilder makes', async ({ spec, runs }) => {
    const tree = unpackSourceTree(scratch);
    let user = { uid: 0, gid: 0 };
    let workdir = '/';
    for (const op of parseSpec(spec).ops) {
      if (op.op === 'workdir') workdir = `/${op.path}`;
      if (op.op === 'user' && op.user.kind === 'unix') user = op.user;
      if (op.op !== 'copy') continue;
      const manifests: Manifest[] = [];
      for (const src of op.src)
        manifests.push(await readManifest({ sourceDirectory: tree, src, exclude: op.exclude }));
      const [manifest] = manifests;
      const isItem = manifest !== undefined && !op.dst.endsWith('/');
      const content: CopyContent = isItem ? { kind: 'item', manifest } : { kind: 'items', manifests };
      const destination = bytes(op.dst.startsWith('/') ? op.dst : `${workdir}/${op.dst}`);
      await extract(tarStream({ sourceDirectory: tree, content, destination, owner: user }));
    }
    const result = runs[0]?.result;
    const expected: Record<string, Found> = {};
    for (const entry of result !== undefined && 'ok' in result ? result.rootfs : []) {
      const { path, mode, uid, gid, mtime, target: to } = entry;
      if (path === '' || /^(bin|etc|tmp)(\/|$)/.test(path)) continue;
      expected[path] = {
        mode,
        uid,
        gid,
        ...(mtime === undefined ? {} : { mtime }),
        ...(to === undefined ? {} : { target: to }),
      };
    }
    expect(listing(target)).toEqual(expected);
  });
});

describe('extraction', () => {
  it('an item is renamed to the destination, items go into it, the source directory gives its content', async () => {
    mkdirSync(join(source, 'a/b'), { recursive: true });
    writeFileSync(join(source, 'a/b/f'), 'x');
    await extract(tarStream(await request('a/b', 'item', '/one/./two//')));
    await extract(tarStream(await request('a/b', 'items', 'into')));
    await extract(tarStream(await request('.', 'items', 'all')));
    expect(Object.keys(listing(target))).toEqual([
      'all',
      'all/a',
      'all/a/b',
      'all/a/b/f',
      'into',
      'into/b',
      'into/b/f',
      'one',
      'one/two',
      'one/two/f',
    ]);
  });

  it('an empty source still makes its destination', async () => {
    await extract(tarStream(await request('.', 'items', 'made')));
    expect(statSync(join(target, 'made')).isDirectory()).toBe(true);
  });

  it('a content for the root itself has no entry for it', async () => {
    expect(await contentOf(tarStream(await request('.', 'items', '')))).toEqual(Buffer.alloc(1024));
  });

  it.each([99, 100, 101, 156, 200, 255])('a name and a target of %i bytes', async (length) => {
    writeFileSync(join(source, 'n'.repeat(length)), 'x');
    symlinkSync('t'.repeat(length), join(source, 'link'));
    await extract(tarStream(await request('.', 'items', '')));
    expect(Object.keys(listing(target)).sort()).toEqual(['link', 'n'.repeat(length)]);
    expect(readlinkSync(join(target, 'link'))).toHaveLength(length);
  });

  it('whoever may execute a file, the copy may be by all; special bits are lost', async () => {
    for (const mode of [0o644, 0o600, 0o100, 0o010, 0o001, 0o4755, 0o2644]) {
      const path = join(source, `m${mode.toString(8)}`);
      writeFileSync(path, '');
      chmodSync(path, mode);
    }
    await extract(tarStream(await request('.', 'items', '')));
    expect(Object.entries(listing(target)).map(([name, { mode }]) => `${name} ${mode}`)).toEqual([
      'm1 0755',
      'm10 0755',
      'm100 0755',
      'm2644 0644',
      'm4755 0755',
      'm600 0644',
      'm644 0644',
    ]);
  });

  it('times before 1970 and after 2242 survive', async () => {
    const times = [-86_400, 0, 1_600_000_000.75, 9_000_000_000];
    for (const time of times) {
      const path = join(source, String(time));
      writeFileSync(path, '');
      utimesSync(path, new Date(time * 1000), new Date(time * 1000));
    }
    await extract(tarStream(await request('.', 'items', '')));
    for (const time of times)
      expect(statSync(join(target, String(time))).mtimeMs).toBe(Math.trunc(time) * 1000);
  });

  describe.skipIf(!isRoot)('over directories that are there', () => {
    const there = 1_000_000_000;

    beforeEach(() => {
      mkdirSync(join(source, 'usr/lib/new'), { recursive: true });
      writeFileSync(join(source, 'usr/lib/f'), 'x');
      mkdirSync(join(target, 'd/usr/lib'), { recursive: true });
      for (const name of ['d/usr', 'd']) {
        chownSync(join(target, name), 3, 4);
        chmodSync(join(target, name), 0o711);
        utimesSync(join(target, name), there, there);
      }
    });

    it('hasDirectory makes any tar leave their owner, mode and time alone', async () => {
      const hasDirectory = (name: ByteString) => Promise.resolve(existsSync(join(target, name)));
      const over = { ...(await request('.', 'items', 'd')), owner: { uid: 7, gid: 8 }, hasDirectory };
      await extract(tarStream(over));
      expect(listing(target)).toMatchObject({
        d: { mode: '0711', uid: 3, gid: 4 },
        'd/usr': { mode: '0711', uid: 3, gid: 4 },
        'd/usr/lib/f': { mode: '0644', uid: 7, gid: 8 },
        'd/usr/lib/new': { mode: '0755', uid: 7, gid: 8 },
      });
      for (const name of ['d', 'd/usr']) expect(statSync(join(target, name)).mtimeMs).toBe(there * 1000);
    });

    it.skipIf(process.platform !== 'linux')(
      'without it GNU tar keeps owner and mode when told so',
      async () => {
        const over = { ...(await request('.', 'items', 'd')), owner: { uid: 7, gid: 8 } };
        await tar(['--no-overwrite-dir', '-xf', '-', '-C', target], tarStream(over));
        expect(listing(target)).toMatchObject({
          d: { mode: '0711', uid: 3, gid: 4 },
          'd/usr': { mode: '0711', uid: 3, gid: 4 },
        });
      },
    );

    it('parents of the destination have no entries', async () => {
      await extract(tarStream(await request('usr/lib', 'items', 'd/usr/')));
      expect(listing(target)).toMatchObject({
        d: { mode: '0711', uid: 3 },
        'd/usr': { mode: '0711', uid: 3 },
      });
    });
  });
});

describe('large numbers', () => {
  it('a size above 8 GiB and an owner above 2 million', async () => {
    const size = 9 * 1024 ** 3;
    writeFileSync(join(source, 'huge'), '');
    truncateSync(join(source, 'huge'), size);
    const manifest: Manifest = { kind: 'file', path: bytes('huge'), size, sha256: '' };
    const stream = tarStream({
      sourceDirectory: source,
      content: { kind: 'item', manifest },
      destination: bytes('huge'),
      owner: { uid: 4_000_000_000, gid: 2_097_152 },
    });
    const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    const { value } = (await iterator.next()) as { value: Buffer };
    stream.destroy();
    const header = value.subarray(0, 512);
    expect(header.subarray(124, 136).toString('hex')).toBe('800000000000000240000000');
    expect(header.subarray(108, 116).toString('hex')).toBe('80000000ee6b2800');
    expect(header.subarray(116, 124).toString('hex')).toBe('8000000000200000');
  });
});

describe('a stream that nobody reads to its end', () => {
  it.skipIf(process.platform !== 'linux')('closes its file when it is destroyed', async () => {
    const path = join(source, 'file');
    writeFileSync(path, Buffer.alloc(1024 ** 2));
    const openFiles = () => readdirSync('/proc/self/fd').flatMap((fd) => linkTarget(`/proc/self/fd/${fd}`));
    const stream = tarStream(await request('.', 'items', ''));
    await once(stream, 'readable');
    stream.read(1024);
    expect(openFiles()).toContain(path);
    stream.destroy();
    await once(stream, 'close');
    expect(openFiles()).not.toContain(path);
  });
});

function linkTarget(link: string): string[] {
  return existsSync(link) ? [readlinkSync(link)] : [];
}

describe('a source that changed since its manifest', () => {
  const cases: [string, (path: string) => void][] = [
    ['grew', (path) => appendFileSync(path, 'more')],
    ['shrank', (path) => truncateSync(path, 2)],
    [
      'has other content of the same size',
      (path) => writeFileSync(path, 'other'.padEnd(statSync(path).size)),
    ],
    ['is gone', (path) => rmSync(path)],
    [
      'became a symbolic link',
      (path) => {
        writeFileSync(`${path}.moved`, 'first');
        rmSync(path);
        symlinkSync(`${path}.moved`, path);
      },
    ],
    [
      'became a directory',
      (path) => {
        rmSync(path);
        mkdirSync(path);
      },
    ],
  ];

  const ofEachSize = cases.flatMap(([what, change]) => [
    { what, size: 5, change },
    { what, size: 300_000, change },
  ]);

  it.each(ofEachSize)('that $what fails the stream and is named: $size bytes', async ({ size, change }) => {
    writeFileSync(join(source, 'file'), 'first'.padEnd(size));
    const changed = await request('.', 'items', 'd');
    change(join(source, 'file'));
    await expect(contentOf(tarStream(changed))).rejects.toMatchObject({
      code: 'SOURCE_CHANGED',
      message: expect.stringContaining(`${source}/file changed`) as string,
      hint: expect.any(String) as string,
    });
  });

  it('a directory or link that is gone fails it too', async () => {
    mkdirSync(join(source, 'sub'));
    symlinkSync('x', join(source, 'link'));
    const [directory, link] = [await request('sub', 'item', 'd'), await request('link', 'item', 'd')];
    rmSync(join(source, 'sub'), { recursive: true });
    rmSync(join(source, 'link'));
    await expect(contentOf(tarStream(directory))).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    await expect(contentOf(tarStream(link))).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
  });

  it('what was added since is not copied', async () => {
    mkdirSync(join(source, 'sub'));
    const before = await request('.', 'items', '');
    writeFileSync(join(source, 'sub/new'), '');
    await extract(tarStream(before));
    expect(existsSync(join(target, 'sub/new'))).toBe(false);
  });
});

type Tree = { readonly [name: string]: Tree | string | { readonly link: string } };

const names = fc
  .uint8Array({ minLength: 1, maxLength: 120 })
  .map((array) => Buffer.from(array).toString('latin1').replace(/[/\0]/g, '_'))
  .filter((name) => name !== '.' && name !== '..');

const trees = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.dictionary(
    names,
    fc.oneof({ maxDepth: 4 }, fc.string(), fc.record({ link: names }), tie('tree')),
    { maxKeys: 5, noNullPrototype: true },
  ),
})).tree;

function plant(directory: Buffer, tree: Tree): void {
  mkdirSync(directory, { recursive: true });
  for (const [name, node] of Object.entries(tree)) {
    const at = Buffer.concat([directory, Buffer.from('/'), Buffer.from(name, 'latin1')]);
    if (typeof node === 'string') writeFileSync(at, node);
    else if (typeof node['link'] === 'string') symlinkSync(Buffer.from(node['link'], 'latin1'), at);
    else plant(at, node);
  }
}

describe('any tree', () => {
  it('is the same tree after extraction', async () => {
    let run = 0;
    // A failure prints the seed and the path to replay it with.
    await fc.assert(
      fc.asyncProperty(trees, async (tree) => {
        source = join(scratch, `source-${++run}`);
        target = join(scratch, `target-${run}`);
        mkdirSync(target);
        plant(Buffer.from(source), tree);
        await extract(tarStream(await request('.', 'items', '')));
        const copied = await manifestOf('.', [], target);
        expect(printMach(manifestSexp(copied))).toBe(printMach(manifestSexp(await manifestOf('.'))));
      }),
      { numRuns: 40 },
    );
  });
});
