import { createHash } from 'node:crypto';
import { lstat } from 'node:fs/promises';
import { closeSync, fstatSync, readSync, type BigIntStats } from 'node:fs';
import { Readable } from 'node:stream';
import { errnoCode, ObuilderError } from '../errors.ts';
import { bufferOf, byteStringOf, textOf, type ByteString } from '../spec/byte-string.ts';
import {
  openSource,
  openSourceNow,
  readBuffer,
  SMALL_SIZE,
  sourcePath,
  type DirectoryManifest,
  type FileManifest,
  type Manifest,
  type SymlinkManifest,
} from './manifest.ts';
import type { CopyContent } from './step-id.ts';

export interface TarRequest {
  readonly sourceDirectory: string;
  readonly content: CopyContent;
  /**
   * Where the content goes, relative to where the archive is extracted, without a leading slash ('' is that place itself): the item
   * itself, or the directory that the items go into.
   */
  readonly destination: ByteString;
  readonly owner: { readonly uid: number; readonly gid: number };
  /** Whether there is a directory (no symbolic link to one) of this name, relative as `destination` is, where the archive goes. */
  readonly hasDirectory?: (name: ByteString) => Promise<boolean>;
}

/**
 * The tar archive (GNU format) of a copy's content, made while it is read: what the manifests list and nothing else, with no file ever
 * wholly in memory. Files are 0755 if anybody may execute them and else 0644, directories 0755; times are whole seconds of the source.
 *
 * Parents of the destination have no entries: tar makes those that are missing. Neither have directories that `hasDirectory` answers
 * for, so a plain `tar -xf -` leaves their owner, mode and time alone, whosever they are. Without `hasDirectory` every copied directory
 * has an entry, and what that does to one that is there depends on the tar: GNU's sets its mode and time (with `--no-overwrite-dir` its
 * time only), bsdtar's (macOS; it does not know that option) its time, as root its mode and owner too; both fail if it is another user's.
 *
 * The stream fails with ObuilderError SOURCE_CHANGED when a source is no longer what its manifest says; what was read until then
 * lacks the end of an archive. Destroying the stream closes what it has open.
 */
export function tarStream(request: TarRequest): Readable {
  return Readable.from(archive(request), { objectMode: false, highWaterMark: READ_SIZE });
}

const BLOCK_SIZE = 512;
const READ_SIZE = 128 * 1024;
const NAME_LENGTH_MAX = 100;

/** A manifest and the name that it gets in the archive. */
interface Entry {
  readonly manifest: Manifest;
  readonly name: ByteString;
}

async function* archive(request: TarRequest): AsyncGenerator<Buffer, void> {
  for (const { manifest, name } of entriesOf(request)) {
    if (manifest.kind === 'file') yield* fileEntry(request, manifest, name);
    else if (manifest.kind === 'symlink') yield await symlinkEntry(request, manifest, name);
    else if (name !== '' && (await request.hasDirectory?.(name)) !== true) {
      yield await directoryEntry(request, manifest, name);
    }
  }
  yield Buffer.alloc(2 * BLOCK_SIZE);
}

function* entriesOf({ content, destination }: TarRequest): Generator<Entry> {
  const prefix = withoutEmptyComponents(destination);
  if (content.kind === 'item') {
    yield* tree(content.manifest, prefix);
    return;
  }
  for (const manifest of content.manifests) yield* tree(manifest, joined(prefix, baseName(manifest.path)));
}

function* tree(manifest: Manifest, name: ByteString): Generator<Entry> {
  yield { manifest, name };
  if (manifest.kind !== 'directory') return;
  for (const child of manifest.children) yield* tree(child, joined(name, baseName(child.path)));
}

/** A last "." stays: a file cannot be put there, and tar says so. */
function withoutEmptyComponents(path: ByteString): ByteString {
  const components = path.split('/').filter((component) => component !== '');
  return components
    .filter((component, i) => component !== '.' || i === components.length - 1)
    .join('/') as ByteString;
}

function joined(directory: ByteString, name: ByteString): ByteString {
  return (directory === '' || name === '' ? directory + name : `${directory}/${name}`) as ByteString;
}

function baseName(path: ByteString): ByteString {
  return path.slice(path.lastIndexOf('/') + 1) as ByteString;
}

async function* fileEntry(
  request: TarRequest,
  manifest: FileManifest,
  name: ByteString,
): AsyncGenerator<Buffer, void> {
  try {
    if (manifest.size <= SMALL_SIZE) yield smallFileEntry(request, manifest, name);
    else yield* largeFileEntry(request, manifest, name);
  } catch (error) {
    throw error instanceof ObuilderError ? error : sourceChanged(request, manifest.path, error);
  }
}

/** In one piece, read on this thread: it was hashed a moment ago, so memory has it, and the thread pool would take ten times as long. */
function smallFileEntry(request: TarRequest, manifest: FileManifest, name: ByteString): Buffer {
  const { path, size, sha256 } = manifest;
  const fd = openSourceNow(request.sourceDirectory, path);
  try {
    const start = fileHeader(request, manifest, { name, stat: fstatSync(fd, { bigint: true }) });
    const content = Buffer.alloc(size + paddingAfter(size));
    const bytesRead = readSync(fd, content, 0, size, null);
    const hash = createHash('sha256').update(content.subarray(0, bytesRead));
    if (hash.digest('hex') !== sha256) throw sourceChanged(request, path);
    return Buffer.concat([start, content]);
  } finally {
    closeSync(fd);
  }
}

async function* largeFileEntry(
  request: TarRequest,
  manifest: FileManifest,
  name: ByteString,
): AsyncGenerator<Buffer, void> {
  const { path, size, sha256 } = manifest;
  const file = await openSource(request.sourceDirectory, path);
  try {
    yield fileHeader(request, manifest, { name, stat: await file.stat({ bigint: true }) });
    const hash = createHash('sha256');
    let left = size;
    while (left > 0) {
      const buffer = readBuffer(Math.min(left, READ_SIZE));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) throw sourceChanged(request, path);
      left -= bytesRead;
      const chunk = buffer.subarray(0, bytesRead);
      hash.update(chunk);
      yield chunk;
    }
    if (hash.digest('hex') !== sha256) throw sourceChanged(request, path);
    const padding = paddingAfter(size);
    if (padding > 0) yield Buffer.alloc(padding);
  } finally {
    await file.close();
  }
}

function fileHeader(
  request: TarRequest,
  { path, size }: FileManifest,
  { name, stat }: { name: ByteString; stat: BigIntStats },
): Buffer {
  if (!stat.isFile() || stat.size !== BigInt(size)) throw sourceChanged(request, path);
  const mode = (stat.mode & 0o111n) === 0n ? 0o644 : 0o755;
  return header({ type: '0', name, mode, size, mtime: seconds(stat), ...request.owner });
}

async function symlinkEntry(
  request: TarRequest,
  { path, target }: SymlinkManifest,
  name: ByteString,
): Promise<Buffer> {
  const stat = await statSource(request, path);
  if (!stat.isSymbolicLink()) throw sourceChanged(request, path);
  return header({ type: '2', name, target, mode: 0o777, size: 0, mtime: seconds(stat), ...request.owner });
}

async function directoryEntry(
  request: TarRequest,
  { path }: DirectoryManifest,
  name: ByteString,
): Promise<Buffer> {
  const stat = await statSource(request, path);
  if (!stat.isDirectory()) throw sourceChanged(request, path);
  const entryName = `${name}/` as ByteString;
  return header({ type: '5', name: entryName, mode: 0o755, size: 0, mtime: seconds(stat), ...request.owner });
}

async function statSource(request: TarRequest, path: ByteString): Promise<BigIntStats> {
  return lstat(sourcePath(request.sourceDirectory, path), { bigint: true }).catch((error: unknown) => {
    throw sourceChanged(request, path, error);
  });
}

function seconds(stat: BigIntStats): number {
  return Number(stat.mtimeNs / 1_000_000_000n);
}

function sourceChanged(request: TarRequest, path: ByteString, cause?: unknown): ObuilderError {
  const reason = errnoCode(cause);
  return new ObuilderError(
    'SOURCE_CHANGED',
    `${request.sourceDirectory}/${textOf(path)} changed while it was being copied${reason === undefined ? '' : ` (${reason})`}`,
    { hint: 'build again when nothing writes to the files that are copied from', cause },
  );
}

interface Header {
  readonly type: '0' | '2' | '5' | 'K' | 'L';
  readonly name: ByteString;
  readonly target?: ByteString;
  readonly mode: number;
  readonly size: number;
  readonly mtime: number;
  readonly uid: number;
  readonly gid: number;
}

/** The header of an entry, after those that carry a name or target too long for it. */
function header(entry: Header): Buffer {
  const blocks = [headerBlock(entry)];
  if (entry.name.length > NAME_LENGTH_MAX) blocks.unshift(longText('L', entry.name));
  if ((entry.target?.length ?? 0) > NAME_LENGTH_MAX)
    blocks.unshift(longText('K', entry.target ?? entry.name));
  return Buffer.concat(blocks);
}

function longText(type: 'K' | 'L', text: ByteString): Buffer {
  const name = byteStringOf('././@LongLink');
  const size = text.length + 1;
  const block = headerBlock({ type, name, mode: 0o644, size, mtime: 0, uid: 0, gid: 0 });
  return Buffer.concat([block, bufferOf(text), Buffer.alloc(1 + paddingAfter(size))]);
}

function headerBlock(entry: Header): Buffer {
  const block = Buffer.alloc(BLOCK_SIZE);
  bufferOf(entry.name).copy(block, 0, 0, NAME_LENGTH_MAX);
  writeNumber(block, 100, 8, entry.mode);
  writeNumber(block, 108, 8, entry.uid);
  writeNumber(block, 116, 8, entry.gid);
  writeNumber(block, 124, 12, entry.size);
  writeNumber(block, 136, 12, entry.mtime);
  block.write(entry.type, 156, 'latin1');
  bufferOf(entry.target ?? NO_TARGET).copy(block, 157, 0, NAME_LENGTH_MAX);
  block.write('ustar  \0', 257, 'latin1');
  block.fill(' ', 148, 156);
  const checksum = block.reduce((sum, byte) => sum + byte, 0);
  block.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

const NO_TARGET = byteStringOf('');

/** Octal digits and a NUL, or, for a number that does not fit them, GNU's base 256: big-endian, marked by the top bit. */
function writeNumber(block: Buffer, offset: number, length: number, value: number): void {
  if (value >= 0 && value < 8 ** (length - 1)) {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, 'latin1');
    return;
  }
  let rest = BigInt.asUintN(length * 8, BigInt(value));
  for (let at = offset + length - 1; at >= offset; at--) {
    block[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[offset] = (block[offset] ?? 0) | 0x80;
}

function paddingAfter(size: number): number {
  return (BLOCK_SIZE - (size % BLOCK_SIZE)) % BLOCK_SIZE;
}
