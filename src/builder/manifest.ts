import { createHash, type Hash } from 'node:crypto';
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  read,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
} from 'node:fs';
import { lstat, open, type FileHandle } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errnoCode, ObuilderError } from '../errors.ts';
import { bufferOf, byteStringOf, type ByteString } from '../spec/byte-string.ts';
import { escapeAtom, type Sexp } from '../spec/sexp.ts';

/**
 * What a copy step would copy: the names and contents, which its id is made of, and no owners, modes or times.
 * `path` is relative to the source directory, without `.` and empty components; the source directory itself is ''.
 */
export type Manifest = FileManifest | SymlinkManifest | DirectoryManifest;

export interface FileManifest {
  readonly kind: 'file';
  readonly path: ByteString;
  readonly size: number;
  /** In hex. */
  readonly sha256: string;
}

export interface SymlinkManifest {
  readonly kind: 'symlink';
  readonly path: ByteString;
  readonly target: ByteString;
}

export interface DirectoryManifest {
  readonly kind: 'directory';
  readonly path: ByteString;
  /** In byte order of their names. */
  readonly children: readonly Manifest[];
}

export interface ManifestRequest {
  readonly sourceDirectory: string;
  /** As the spec writes it. */
  readonly src: ByteString;
  /** Base names left out at every level below `src`, which itself is never left out. */
  readonly exclude: readonly ByteString[];
  readonly signal?: AbortSignal;
}

/**
 * Reads and hashes what `src` names. Symbolic links are recorded, never followed, and none may lead to `src`.
 * @throws {ObuilderError} BAD_SOURCE when `src` is not there, leads out, or is or holds what cannot be copied; worded as OBuilder words it.
 */
export async function readManifest(request: ManifestRequest): Promise<Manifest> {
  return new TreeReader(request).read(resolveSource(request));
}

/** The form that ids are made of. */
export function manifestSexp(manifest: Manifest): Sexp {
  switch (manifest.kind) {
    case 'file':
      return [FILE, [manifest.path, byteStringOf(manifest.sha256)]];
    case 'symlink':
      return [SYMLINK, [manifest.path, manifest.target]];
    case 'directory':
      return [DIRECTORY, [manifest.path, manifest.children.map(manifestSexp)]];
  }
}

const FILE = byteStringOf('File');
const SYMLINK = byteStringOf('Symlink');
const DIRECTORY = byteStringOf('Dir');

/** The path of an entry of a source tree, whatever bytes its name has. */
export function sourcePath(sourceDirectory: string, path: ByteString): Buffer {
  return Buffer.concat([Buffer.from(`${sourceDirectory}/`), bufferOf(path)]);
}

/** Opens a source file; never through a symbolic link, and without waiting for the other end of a pipe. */
export async function openSource(sourceDirectory: string, path: ByteString): Promise<FileHandle> {
  return open(sourcePath(sourceDirectory, path), SOURCE_FLAGS);
}

/** As `openSource`, on this thread, which waits if memory has not the directory's entry. */
export function openSourceNow(sourceDirectory: string, path: ByteString): number {
  return openSync(sourcePath(sourceDirectory, path), SOURCE_FLAGS);
}

const SOURCE_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Walks `src` component by component, so that none but the last is anything else than a directory. */
function resolveSource({ sourceDirectory, src }: ManifestRequest): ByteString {
  const components = src.split('/');
  const found: string[] = [];
  for (const [index, component] of components.entries()) {
    if (component === '' || component === '.') continue;
    if (component === '..') throw badSource(`Can't use .. in source paths! (in ${quoted(src)})`, PARENT_HINT);
    found.push(component);
    const kind = kindOf(statOf(sourcePath(sourceDirectory, found.join('/') as ByteString), src));
    const isLast = index === components.length - 1;
    if (kind === 'directory' || (isLast && kind !== 'other')) continue;
    // OBuilder prints these components last first; its wording is kept, and the source follows as it was written.
    const reversed = escapeAtom([...found].reverse().join('/'));
    throw kind === 'file'
      ? badSource(
          `Not a directory: ${reversed} (in ${quoted(src)})`,
          'copy the file itself, without "/" after it',
        )
      : badSource(`Not a regular file: ${reversed} (in ${quoted(src)})`, KIND_HINT);
  }
  return found.join('/') as ByteString;
}

/**
 * Reads one tree. Small files, directories and links are read on this thread, in slices that leave room for its other work: through the
 * thread pool each would take twenty times as long. Large files are read by the pool while this thread hashes.
 */
class TreeReader {
  readonly #sourceDirectory: string;
  readonly #exclude: ReadonlySet<ByteString>;
  readonly #signal: AbortSignal | undefined;
  #sliceEnd = 0;
  /** How many entries the pool has to touch before this thread reads them, because the disk made it wait. */
  #toTouch = 0;

  constructor({ sourceDirectory, exclude, signal }: ManifestRequest) {
    this.#sourceDirectory = sourceDirectory;
    this.#exclude = new Set(exclude);
    this.#signal = signal;
  }

  async read(path: ByteString): Promise<Manifest> {
    this.#signal?.throwIfAborted();
    const at = sourcePath(this.#sourceDirectory, path);
    if (performance.now() > this.#sliceEnd) await this.#nextSlice();
    if (this.#toTouch > 0) await this.#touch(at);
    try {
      const stat = this.#atOnce(() => statOf(at, path));
      switch (kindOf(stat)) {
        case 'file':
          return await this.#readFile(path, at, stat.size);
        case 'symlink':
          return { kind: 'symlink', path, target: byteStringOf(readlinkSync(at, { encoding: 'buffer' })) };
        case 'directory':
          return await this.#readDirectory(path, at);
        case 'other':
          throw badSource(`Unsupported file type for ${quoted(path)}`, KIND_HINT);
      }
    } catch (error) {
      throw error instanceof ObuilderError || errnoCode(error) === undefined
        ? error
        : unreadable(path, error);
    }
  }

  async #nextSlice(): Promise<void> {
    await setImmediate();
    this.#signal?.throwIfAborted();
    this.#sliceEnd = performance.now() + SLICE_MS;
  }

  /** Makes calls that wait where the disk must be asked; if it takes long, the pool is to do the waiting for what comes next. */
  #atOnce<T>(calls: () => T): T {
    const begun = performance.now();
    const result = calls();
    if (performance.now() - begun > SLOW_MS) this.#toTouch = TOUCH_COUNT;
    return result;
  }

  /** What fails here fails again where it is reported. */
  async #touch(at: Buffer): Promise<void> {
    this.#toTouch--;
    const stat = await lstat(at).catch(() => undefined);
    if (stat?.isFile() !== true) return;
    const file = await open(at, SOURCE_FLAGS).catch(() => undefined);
    await file?.read(Buffer.allocUnsafe(SMALL_SIZE)).catch(() => undefined);
    await file?.close();
  }

  async #readDirectory(path: ByteString, at: Buffer): Promise<DirectoryManifest> {
    const entries = this.#atOnce(() => readdirSync(at, { encoding: 'buffer', withFileTypes: true }));
    const children: Manifest[] = [];
    const ahead: Promise<Manifest>[] = [];
    try {
      for (const entry of entries.sort((a, b) => Buffer.compare(a.name, b.name))) {
        const name = byteStringOf(entry.name);
        if (this.#exclude.has(name)) continue;
        // The disk reads the next files while one is hashed. One directory at a time: what is open at once stays bounded.
        const aheadMax = entry.isDirectory() ? 0 : FILES_AHEAD;
        while (ahead.length > aheadMax) children.push(await nextOf(ahead));
        const child = this.read((path === '' ? name : `${path}/${name}`) as ByteString);
        child.catch(() => undefined); // it may fail before its turn to be awaited
        ahead.push(child);
        if (entry.isDirectory()) children.push(await nextOf(ahead));
      }
      while (ahead.length > 0) children.push(await nextOf(ahead));
    } finally {
      await Promise.allSettled(ahead); // after a failure: nothing goes on behind the caller's back
    }
    return { kind: 'directory', path, children };
  }

  async #readFile(path: ByteString, at: Buffer, expectedSize: number): Promise<FileManifest> {
    const fd = this.#atOnce(() => openSync(at, SOURCE_FLAGS));
    try {
      const hash = createHash('sha256');
      let size = 0;
      if (expectedSize <= SMALL_SIZE) {
        size = this.#atOnce(() => readSync(fd, smallBuffer));
        hash.update(smallBuffer.subarray(0, size));
      }
      if (size !== expectedSize) size += await this.#hashRest(fd, hash);
      return { kind: 'file', path, size, sha256: hash.digest('hex') };
    } finally {
      closeSync(fd);
    }
  }

  /** Hashes to the file's end and answers how much that was. */
  async #hashRest(fd: number, hash: Hash): Promise<number> {
    let [buffer, next] = [takeBuffer(), takeBuffer()];
    let reading = readInPool(fd, buffer, 0, READ_SIZE, null);
    try {
      for (let size = 0; ;) {
        this.#signal?.throwIfAborted();
        const { bytesRead } = await reading;
        if (bytesRead === 0) return size;
        reading = readInPool(fd, next, 0, READ_SIZE, null); // while this thread hashes
        hash.update(buffer.subarray(0, bytesRead));
        size += bytesRead;
        [buffer, next] = [next, buffer];
      }
    } finally {
      await reading.catch(() => undefined); // nothing may be read into a buffer that is another's by then
      if (spareBuffers.length < 2 * FILES_AHEAD) spareBuffers.push(buffer, next);
    }
  }
}

function statOf(at: Buffer, src: ByteString): Stats {
  try {
    return lstatSync(at);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT')
      throw badSource(`Source path ${quoted(src)} not found`, MISSING_HINT, error);
    throw unreadable(src, error);
  }
}

function kindOf(stat: Stats): 'file' | 'symlink' | 'directory' | 'other' {
  if (stat.isFile()) return 'file';
  if (stat.isSymbolicLink()) return 'symlink';
  return stat.isDirectory() ? 'directory' : 'other';
}

/** Takes the first of the list only once it has ended, so that a failure leaves the list of those still underway. */
async function nextOf(ahead: Promise<Manifest>[]): Promise<Manifest> {
  const next = (await ahead[0]) as Manifest;
  void ahead.shift();
  return next;
}

const readInPool = promisify(read);

function takeBuffer(): Buffer {
  return spareBuffers.pop() ?? readBuffer(READ_SIZE);
}

/** Memory to read a file into, from the start of a cache line: malloc's large blocks start 16 bytes behind a page's, where AMD's copy slowly. */
export function readBuffer(size: number): Buffer {
  return Buffer.allocUnsafe(size + 48).subarray(48);
}

const READ_SIZE = 1024 * 1024;
/** Used again: the pages of a new one cost as much as reading into it. */
const spareBuffers: Buffer[] = [];
/** Up to here, a file is read on this thread. */
export const SMALL_SIZE = 128 * 1024;
/** What is read at once is hashed at once, so one will do. */
const smallBuffer = readBuffer(SMALL_SIZE);
const FILES_AHEAD = 4;
const SLICE_MS = 3;
const SLOW_MS = 10;
const TOUCH_COUNT = 16;
const PARENT_HINT = 'name the source from the root of what is copied from';
const MISSING_HINT =
  'sources are relative to the root of what is copied from; check the name, and the files that an earlier step made';
const KIND_HINT =
  'only files, directories and symbolic links can be copied, and symbolic links are not followed; (exclude NAME) leaves others out';

function quoted(path: ByteString): string {
  return `"${escapeAtom(path)}"`;
}

function unreadable(path: ByteString, cause: unknown): ObuilderError {
  return badSource(
    `Source path ${quoted(path)} is not readable: ${errnoCode(cause) ?? String(cause)}`,
    MISSING_HINT,
    cause,
  );
}

function badSource(message: string, hint: string, cause?: unknown): ObuilderError {
  return new ObuilderError('BAD_SOURCE', message, { hint, cause });
}
