import { createHash, randomFillSync } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { readManifest } from '../../src/builder/manifest.ts';
import { byteStringOf } from '../../src/spec/byte-string.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import { createScratch } from './scratch.ts';
import { spreadOf } from './statistics.ts';
import { textTable } from './table.ts';

const MIB = 1024 * 1024;
const RUNS_MIN = 7;

interface SpecArguments {
  runs: number;
  size: number;
  json: boolean;
}

export const specCommand: CommandModule<object, SpecArguments> = {
  command: 'spec',
  describe:
    'Measure how fast specs are read, and copy sources hashed against plain SHA-256 of the same bytes',
  builder: (yargs) =>
    yargs
      .option('runs', { type: 'number', default: RUNS_MIN, describe: 'How often everything is measured' })
      .option('size', { type: 'number', default: 128, describe: 'MiB of files to hash' })
      .option('json', { type: 'boolean', default: false, describe: 'Print JSON, for scripts' }),
  handler: async ({ runs, size, json }) => {
    const rates = [...measureParsing(runs), ...(await measureHashing(runs, size))];
    console.log(json ? JSON.stringify(rates, undefined, 2) : describeRates(rates));
  },
};

interface Rate {
  readonly what: string;
  readonly mibPerSecond: { readonly median: number; readonly lower: number; readonly upper: number };
}

/** An operation of each kind, as a CI that builds OCaml packages writes them. */
const OPERATIONS = `
 (run (cache (opam-archives (target /Users/mac1000/.opam/download-cache)) (homebrew (target /Users/mac1000/Library/Caches/Homebrew)))
      (network host)
      (shell "cd ~/opam-repository && (git cat-file -e 0123456789abcdef || git fetch origin master) && git reset -q --hard 0123456789abcdef"))
 (copy (src a.opam b.opam) (dst ./src/))
 (env CLICOLOR_FORCE 1)
 (comment "one more")`;

function measureParsing(runs: number): Rate[] {
  return [
    ['a spec of 10 KiB', 10 * 1024],
    ['a spec of 10 MiB', 10 * MIB],
  ].map(([what, length]) => {
    const source = Buffer.from(`((from base)${OPERATIONS.repeat(Number(length) / OPERATIONS.length)})`);
    const times = Math.ceil((10 * MIB) / source.length);
    return rateOf(`parse ${what ?? ''}`, runs, source.length * times, () => {
      for (let i = 0; i < times; i++) parseSpec(source);
    });
  });
}

/** What is hashed, in files of how many bytes each. */
const SOURCES = [
  { what: 'one file', fileSize: Infinity },
  { what: 'files of 1 MiB', fileSize: MIB },
  { what: 'files of 4 KiB', fileSize: 4096 },
];

async function measureHashing(runs: number, size: number): Promise<Rate[]> {
  const rates: Rate[] = [];
  for (const { what, fileSize } of SOURCES) {
    const scratch = createScratch();
    try {
      rates.push(
        ...(await measureSource(scratch.make('source'), { what, runs, size: size * MIB, fileSize })),
      );
    } finally {
      scratch.sweep();
    }
  }
  return rates;
}

interface SourceShape {
  readonly what: string;
  readonly runs: number;
  readonly size: number;
  readonly fileSize: number;
}

/** SHA-256 of bytes in memory and the manifest of files of them take turns, so that what else the machine does meets both. */
async function measureSource(
  directory: string,
  { what, runs, size, ...shape }: SourceShape,
): Promise<Rate[]> {
  const fileSize = Math.min(shape.fileSize, size);
  const content = randomFillSync(Buffer.alloc(Math.min(fileSize, MIB)));
  const [files, piecesPerFile] = [size / fileSize, fileSize / content.length];
  for (let i = 0; i < files; i++)
    for (let piece = 0; piece < piecesPerFile; piece++) appendFileSync(join(directory, String(i)), content);
  const request = { sourceDirectory: directory, src: byteStringOf('.'), exclude: [] };
  const hashAll = () => {
    for (let i = 0; i < files; i++) {
      const hash = createHash('sha256');
      for (let piece = 0; piece < piecesPerFile; piece++) hash.update(content);
      hash.digest('hex');
    }
  };
  await readManifest(request); // from here on the files are in memory
  const [plain, manifest]: [number[], number[]] = [[], []];
  for (let run = 0; run < runs; run++) {
    plain.push(await secondsOf(hashAll));
    manifest.push(await secondsOf(() => readManifest(request)));
  }
  return [spread(`plain SHA-256 of ${what}`, plain, size), spread(`manifest of ${what}`, manifest, size)];
}

function rateOf(what: string, runs: number, bytes: number, action: () => void): Rate {
  const seconds: number[] = [];
  for (let run = 0; run < runs; run++) {
    const begun = performance.now();
    action();
    seconds.push((performance.now() - begun) / 1000);
  }
  return spread(what, seconds, bytes);
}

async function secondsOf(action: () => unknown): Promise<number> {
  const begun = performance.now();
  await action();
  return (performance.now() - begun) / 1000;
}

function spread(what: string, seconds: readonly number[], bytes: number): Rate {
  return { what, mibPerSecond: spreadOf(seconds.map((one) => bytes / MIB / one)) };
}

function describeRates(rates: readonly Rate[]): string {
  const rows = rates.map(({ what, mibPerSecond: { median, lower, upper } }) =>
    [what, median, lower, upper].map((cell) => (typeof cell === 'number' ? cell.toFixed(1) : cell)),
  );
  return textTable(['MiB/s', 'median', 'quartile', 'quartile'], rows);
}
