import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { runCommand } from '../../../src/os/exec.ts';
import type { Scratch } from '../scratch.ts';

/** The callers: uids that need no accounts, each with a tree of its own. */
export const CALLERS = [7725, 7726] as const;

/** Which of them: the second one takes part where two work at once. */
export type CallerNumber = 0 | 1;

export interface Size {
  readonly knownDirectories: number;
  readonly walkDirectories: number;
  readonly filesPerDirectory: number;
  /** How many times as large as the others one tree is, to show how a walk grows. */
  readonly growth: number;
  readonly tools: number;
  readonly largeFileMiB: number;
  readonly systemHeaders: readonly string[];
  readonly generatedHeaders: number;
  readonly sourceFiles: number;
  readonly operations: number;
  readonly changes: number;
}

export const SIZES: Record<'small' | 'full', Size> = {
  full: {
    knownDirectories: 10,
    walkDirectories: 200,
    filesPerDirectory: 100,
    growth: 10,
    tools: 500,
    largeFileMiB: 1024,
    systemHeaders: ['bits/stdc++.h'],
    generatedHeaders: 400,
    sourceFiles: 4_000,
    operations: 10_000,
    changes: 5_000,
  },
  small: {
    knownDirectories: 5,
    walkDirectories: 40,
    filesPerDirectory: 50,
    growth: 10,
    tools: 100,
    largeFileMiB: 64,
    systemHeaders: ['string', 'vector'],
    generatedHeaders: 100,
    sourceFiles: 500,
    operations: 2_000,
    changes: 500,
  },
};

/** What every contender shows. It lies on disk once for each caller; whatever a client adds it takes away again. */
export interface DataSet {
  readonly scratch: Scratch;
  readonly size: Size;
  /** The program of client.cc. */
  readonly client: string;
  readonly archive: string;
  /** The directories that g++ looks through for headers, below a root. */
  readonly headerDirectories: readonly string[];
  readonly compiled: string;
  /** Where the caller's own tree really lies. */
  readonly directory: (caller: CallerNumber) => string;
}

/** As many include directories as a project with a few libraries has; each header is looked for in all before its own. */
const HEADER_PATHS = 4;
export const COMPILER = ['g++', '-std=c++20'];

export async function makeDataSet(
  scratch: Scratch,
  client: string,
  sizeName: 'small' | 'full',
): Promise<DataSet> {
  const size = SIZES[sizeName];
  const compiled = scratch.path('compiled.cc');
  writeFileSync(compiled, compiledSource(size));
  const systemDirectories = await headerSearchPath();
  const first = scratch.make('data/0/local');
  await fill(first, client, size);
  const headers = systemDirectories.map((directory) => join('include/system', directory));
  const generated = Array.from({ length: HEADER_PATHS }, (_, path) => `include/generated${path}`);
  makeGeneratedHeaders(first, size);
  await copySystemHeaders(first, compiled, generated);
  const archive = await makeArchive(scratch, client, size);
  await runCommand(['cp', '-a', scratch.path('data/0'), scratch.path('data/1')]);
  for (const [caller, uid] of CALLERS.entries()) {
    await runCommand(['chown', '-R', `${uid}:${uid}`, scratch.path(`data/${caller}`)]);
    await mountChanges(scratch.make(`data/${caller}/local/changes`), uid);
  }
  return {
    ...{ scratch, size, client, archive, compiled },
    headerDirectories: [...generated, ...headers],
    directory: (caller) => scratch.path(`data/${caller}/local`),
  };
}

/** In memory: creating a file on ext4 takes several times as long, by how many were deleted there in the last minutes. */
async function mountChanges(point: string, uid: number): Promise<void> {
  await runCommand(['mount', '-t', 'tmpfs', '-o', `mode=755,uid=${uid},gid=${uid}`, 'bench-changes', point]);
}

async function fill(root: string, client: string, size: Size): Promise<void> {
  const make = (name: string, directories: number, bytes: number) =>
    runCommand([
      client,
      'make',
      join(root, name),
      String(directories),
      String(size.filesPerDirectory),
      String(bytes),
    ]);
  mkdirSync(join(root, 'work'));
  writeFileSync(join(root, 'top'), 'top\n');
  writeFileSync(join(root, 'large-file'), Buffer.alloc(size.largeFileMiB << 20, 'x'));
  await make('known', size.knownDirectories, 4096);
  await make('walk', size.walkDirectories, 64);
  makeTools(root, size);
}

/** As Homebrew links its tools: bin/tool -> ../opt/tool/bin/tool, opt/tool -> ../Cellar/tool/1.0. */
function makeTools(root: string, size: Size): void {
  for (const name of ['bin', 'opt']) mkdirSync(join(root, name));
  for (let number = 0; number < size.tools; number++) {
    const tool = `tool${number}`;
    mkdirSync(join(root, 'Cellar', tool, '1.0/bin'), { recursive: true });
    writeFileSync(join(root, 'Cellar', tool, '1.0/bin', tool), '#!/bin/sh\n');
    symlinkSync(`../Cellar/${tool}/1.0`, join(root, 'opt', tool));
    symlinkSync(`../opt/${tool}/bin/${tool}`, join(root, 'bin', tool));
  }
}

/** The trees that show how time and memory grow: too large to make where nobody asks. */
export async function makeGrowingTrees({ client, size, directory }: DataSet): Promise<void> {
  for (const [name, times] of [
    ['grow-small', 1],
    ['grow-large', size.growth],
  ] as const) {
    const tree = join(directory(0), name);
    const directories = String(size.walkDirectories * times);
    await runCommand([client, 'make', tree, directories, String(size.filesPerDirectory), '1']);
    await runCommand(['chown', '-R', `${CALLERS[0]}:${CALLERS[0]}`, tree]);
  }
}

/** Includes headers of the standard library and many small ones, which lie in several directories. */
function compiledSource({ systemHeaders, generatedHeaders }: Size): string {
  const generated = Array.from({ length: generatedHeaders }, (_, number) => `generated/h${number}.h`);
  const includes = [...systemHeaders, ...generated].map((header) => `#include <${header}>\n`);
  return `${includes.join('')}int main() { return h0(); }\n`;
}

function makeGeneratedHeaders(root: string, size: Size): void {
  for (let path = 0; path < HEADER_PATHS; path++)
    mkdirSync(join(root, `include/generated${path}/generated`), { recursive: true });
  for (let number = 0; number < size.generatedHeaders; number++) {
    const path = number % HEADER_PATHS;
    const functionText = `#pragma once\n${'// a line\n'.repeat(40)}inline int h${number}() { return ${number}; }\n`;
    writeFileSync(join(root, `include/generated${path}/generated/h${number}.h`), functionText);
  }
}

/** Where g++ looks for headers by itself. */
async function headerSearchPath(): Promise<string[]> {
  const { stderr } = await runCommand(['g++', '-E', '-v', '-x', 'c++', '/dev/null']);
  const paths = /<\.\.\.> search starts here:\n([^]*?)End of search list/.exec(stderr)?.[1] ?? '';
  return paths
    .split('\n')
    .map((path) => path.trim())
    .filter((path) => path !== '');
}

/** Copies just the headers that the compiled file needs, each below include/system at its path. */
async function copySystemHeaders(
  root: string,
  compiled: string,
  generated: readonly string[],
): Promise<void> {
  const includes = generated.flatMap((directory) => ['-isystem', join(root, directory)]);
  const { stdout } = await runCommand([...COMPILER, '-M', ...includes, compiled]);
  const needed = stdout.split(/[\s\\]+/).filter((path) => path.startsWith('/usr/'));
  for (const path of needed) {
    const copy = join(root, 'include/system', path);
    mkdirSync(dirname(copy), { recursive: true });
    cpSync(path, copy, { dereference: true });
  }
}

/** A repository with its history, as sources come. */
async function makeArchive(scratch: Scratch, client: string, size: Size): Promise<string> {
  const sources = scratch.path('sources');
  mkdirSync(sources);
  const perDirectory = 50;
  const directories = String(size.sourceFiles / perDirectory);
  await runCommand([client, 'make', join(sources, 'lib'), directories, String(perDirectory), '2000']);
  const git = ['git', '-C', sources, '-c', 'user.name=bench', '-c', 'user.email=bench@localhost'];
  await runCommand([...git, 'init', '--quiet']);
  await runCommand([...git, 'add', '.']);
  await runCommand([...git, 'commit', '--quiet', '-m', 'All']);
  const archive = scratch.path('sources.tar');
  await runCommand(['tar', '--owner=0', '--group=0', '-cf', archive, '-C', scratch.directory, 'sources']);
  return archive;
}
