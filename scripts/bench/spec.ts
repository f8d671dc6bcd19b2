import { createHash, randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
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

async function measureHashing(runs: number, size: number): Promise<Rate[]> {
  const scratch = createScratch();
  try {
    const content = randomFillSync(Buffer.alloc(MIB));
    const directory = scratch.make('source');
    for (let i = 0; i < size; i++) writeFileSync(join(directory, `${i}.bin`), content);
    const request = { sourceDirectory: directory, src: byteStringOf('.'), exclude: [] };
    await readManifest(request); // from here on the files are in memory
    const plain = rateOf('plain SHA-256', runs, size * MIB, () => {
      for (let i = 0; i < size; i++) createHash('sha256').update(content).digest('hex');
    });
    const seconds: number[] = [];
    for (let run = 0; run < runs; run++) seconds.push(await secondsOf(() => readManifest(request)));
    return [plain, spread('manifest of files of 1 MiB', seconds, size * MIB)];
  } finally {
    scratch.sweep();
  }
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

async function secondsOf(action: () => Promise<unknown>): Promise<number> {
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
