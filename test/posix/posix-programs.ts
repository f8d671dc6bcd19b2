import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SUITE_SOURCES = ['operations.cc', 'behaviours.cc', 'between-processes.cc'] as const;
const MODEL_SOURCES = ['data-model.cc', 'name-model.cc'] as const;
/** Guards against hangs; a whole run takes a few seconds. */
const HANG_MS = 110_000;

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** The POSIX tests' compiled programs, in a temporary directory that `close` takes away. */
export interface PosixPrograms {
  /** `SUITE FOLDER [PATTERN]`: every test as a line `ok - NAME` or `not ok - NAME` and `# why`. */
  readonly suite: string;
  /** `MODELS data|names FOLDER SEED OPERATIONS`: random operations against a model. */
  readonly models: string;
  close(): void;
}

export function compilePosixPrograms(): PosixPrograms {
  const directory = mkdtempSync(join(tmpdir(), 'obuilder-fs-posix.'));
  const [suite, models] = [join(directory, 'posix-suite'), join(directory, 'posix-models')];
  const common = here('suite.cc');
  compile(suite, [common, here('suite-main.cc'), ...SUITE_SOURCES.map(here)]);
  compile(models, [common, ...MODEL_SOURCES.map(here), here('models-main.cc')]);
  return { suite, models, close: () => rmSync(directory, { recursive: true, force: true }) };
}

function compile(program: string, sources: readonly string[]): void {
  const flags = ['-std=c++17', '-O0', '-Wall', '-Wextra', '-Werror', '-pthread'];
  execFileSync('c++', [...flags, '-o', program, ...sources], { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** The names of the suite's tests, in their order. */
export function listPosixTests(programs: PosixPrograms): string[] {
  return execFileSync(programs.suite, ['--list'], { encoding: 'utf8' }).trimEnd().split('\n');
}

/** Each test that ran: 'ok', or why it failed. */
export type PosixResults = ReadonlyMap<string, string>;

/**
 * Runs the suite in a folder: an empty one, open to all. `wrap` makes the command that runs there, with the folder as that command
 * sees it; `pattern` takes the tests whose names match.
 */
export function runPosixSuite(
  programs: PosixPrograms,
  folder: string,
  { pattern = '*', wrap = (argv) => argv }: { pattern?: string; wrap?: (argv: string[]) => string[] } = {},
): PosixResults {
  const [command = '', ...args] = wrap([programs.suite, folder, pattern]);
  const done = spawnSync(command, args, { encoding: 'utf8', timeout: HANG_MS });
  if (done.status !== 0 && done.status !== 1) {
    throw new Error(`posix-suite ended with ${done.signal ?? done.status}: ${done.stderr}\n${done.stdout}`);
  }
  return readResults(done.stdout);
}

function readResults(output: string): PosixResults {
  const results = new Map<string, string>();
  let last = '';
  for (const line of output.split('\n')) {
    const passed = /^(not )?ok - (.*)$/.exec(line);
    if (passed?.[2] !== undefined) {
      last = passed[2];
      results.set(last, passed[1] === undefined ? 'ok' : '');
    } else if (results.get(last) !== 'ok' && line.startsWith('# ')) {
      results.set(last, line.slice(2));
    }
  }
  return results;
}

/** Runs a model; answers 'ok' or what went wrong and how to run just that again. */
export function runModel(
  programs: PosixPrograms,
  run: { model: 'data' | 'names'; folder: string; seed: number; operations: number },
  wrap: (argv: string[]) => string[] = (argv) => argv,
): string {
  const [command = '', ...args] = wrap([
    programs.models,
    run.model,
    run.folder,
    String(run.seed),
    String(run.operations),
  ]);
  const done = spawnSync(command, args, { encoding: 'utf8', timeout: HANG_MS });
  if (done.status === 0) return 'ok';
  return `${done.stderr}${done.stdout}(signal ${done.signal}) seed ${run.seed}: OBUILDER_FS_SEED=${run.seed} replays it`;
}
