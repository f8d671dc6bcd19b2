import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { setScoreboardEntry } from '../../src/fs/scoreboard.ts';
import type { EmbeddedBuilder } from '../../src/index.ts';
import {
  createScratchPool,
  poolUids,
  run,
  runBuild,
  servingPid,
  specOf,
  type PoolBuild,
  type ScratchPool,
} from '../helpers/scratch-pool.ts';
import { runAs, whyNoMounts } from '../helpers/scratch-mount.ts';

const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const ROUNDS = isLong ? 50 : 1;
const STEPS = isLong ? 3 : 1;
const OPERATIONS = 25;
/** A build that is disturbed this often has met something else. */
const ATTEMPTS_MAX = 10;

/** Has an entry of its own that changes all the time, and calls nothing. */
const bystander = 7778;
/** Has none. */
const stranger = 7779;

describe.skipIf(whyNoMounts !== undefined)('8 build users build 8 specs at once', () => {
  let scratch: ScratchPool;
  /** What each spec makes when it is built alone. */
  let alone: ReadonlyMap<string, string>[];
  const seed = Number(process.env['OBUILDER_FS_SEED'] ?? Date.now() % 1_000_000);

  beforeAll(async () => {
    console.log(`pool seed ${seed} (replay with OBUILDER_FS_SEED=${seed})`);
    scratch = await createScratchPool();
    mkdirSync(scratch.path('context/d'));
    writeFileSync(scratch.path('context/d/x'), 'x');
    const builder = await scratch.open({ builders: 1, prefixMode: 'bind' });
    try {
      alone = [];
      for (const i of poolUids.keys()) {
        const { id } = await runBuild(builder, specNumber(i, 'alone'), context());
        alone.push(treeOf(scratch.rootfs(id)));
      }
    } finally {
      await builder.close();
    }
  });
  afterAll(() => scratch.close());

  const context = () => ({ context: scratch.path('context') });

  /** The same tree in every round, under other ids. */
  function specNumber(i: number, round: string): string {
    const random = randomOf(seed + i);
    const steps = Array.from({ length: STEPS }, () => run(scriptOf(i, random)));
    return specOf(`(env ROUND ${round})`, ...steps, `(copy (src d hello.txt) (dst ./copied-${i}/))`);
  }

  /** Names are the same for all, so that any mixture shows. */
  function scriptOf(i: number, random: () => number): string {
    const places = ['~', '~/d', scratch.prefix, `${scratch.prefix}/lib`];
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
    const name = () => `${pick(places)}/${pick(['a', 'b', 'c', 'e'])}`;
    const operations = [
      () => `echo ${i}-${random()} > ${name()}`,
      () => `echo ${i} >> ${name()}`,
      () => `ln -sfn "$HOME"/${pick(['a', 'd/b', 'local/lib/c'])} ${name()}.link`,
      () => `ln -f ${name()} ${name()}.hard`,
      () => `chmod ${pick(['600', '755', '4711', '2750'])} ${name()}`,
      () => `mv -fT ${name()} ${name()}`,
      () => `rm -f ${name()}`,
      () => `mkdir -p ${name()}.dir/${i}`,
    ];
    const lines = Array.from({ length: OPERATIONS }, () => `${pick(operations)()} 2> /dev/null; looks`);
    return [
      `mkdir -p ~/d ${scratch.prefix}/lib`,
      // Whatever another user made would be seen, and fail the step.
      `looks() { for one in ~/who ${scratch.prefix}/who "$TMPDIR"/who; do test "$(cat $one)" = ${i} || exit 9; done; }`,
      `for one in ~ ${scratch.prefix} "$TMPDIR"; do echo ${i} > $one/who; done; echo began`,
      ...lines,
      'echo half; sleep 0.05',
      ...lines,
      'true',
    ].join('\n');
  }

  it.each(['tree', 'shared'] as const)(
    'through remaps, cancels and a killed mount each result is what it is alone: prefix mode %s',
    async (prefixMode) => {
      const random = randomOf(seed);
      const builder = await scratch.open({ builders: poolUids.length, prefixMode });
      try {
        for (let round = 0; round < ROUNDS; round++)
          await playRound(builder, `${prefixMode}-${round}`, random);
      } finally {
        await builder.close();
      }
      clearBystander();
      expect(scratch.leftovers()).toEqual([]);
      for (const path of ['state/store', 'state/sandbox', 'state/run'])
        expect(runAs(stranger, ['ls', scratch.path(path)]).stderr).toContain('Permission denied');
    },
    ROUNDS * 60_000 + 60_000,
  );

  async function playRound(builder: EmbeddedBuilder, round: string, random: () => number): Promise<void> {
    const disturbance = disturbances(random);
    const ids = await Promise.all(
      poolUids.map((_, i) => buildUntilSaved(builder, specNumber(i, round), disturbance)),
    );
    expect(disturbance.kills()).toBe(1);
    for (const [i, id] of ids.entries()) {
      const made = treeOf(scratch.rootfs(id));
      expect(made, `spec ${i} in round ${round}`).toEqual(alone[i]);
    }
  }

  interface Disturbances {
    /** Called for whatever a build says; answers whether to cancel it. */
    heard(): boolean;
    kills(): number;
  }

  /** In each round some builds are cancelled and the mount is killed once, half-way; the bystander's tree changes with every word. */
  function disturbances(random: () => number): Disturbances {
    let heard = 0;
    let kills = 0;
    const killAt = 8 + Math.floor(random() * 8);
    const cancelAt = new Set(Array.from({ length: 3 }, () => 1 + Math.floor(random() * 16)));
    return {
      heard() {
        heard++;
        pointBystander(heard % 2 === 0 ? 'even' : 'odd');
        if (heard >= killAt && kills === 0) {
          process.kill(servingPid(scratch), 'SIGKILL');
          kills++;
        }
        return cancelAt.has(heard);
      },
      kills: () => kills,
    };
  }

  function pointBystander(name: string): void {
    mkdirSync(scratch.path(`${name}/local`), { recursive: true });
    setScoreboardEntry(scratch.path('state/scoreboard'), String(bystander), scratch.path(name));
  }

  function clearBystander(): void {
    runAs(0, ['rm', '-f', scratch.path(`state/scoreboard/${bystander}`)]);
  }

  async function buildUntilSaved(
    builder: EmbeddedBuilder,
    spec: string,
    disturbance: Disturbances,
  ): Promise<string> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const cancel = new AbortController();
      const onOutput = () => {
        if (disturbance.heard()) cancel.abort();
      };
      const build = await runBuild(builder, spec, { ...context(), signal: cancel.signal, onOutput });
      if (!wasDisturbed(build, cancel.signal)) return build.id;
    }
    throw new Error(`disturbed ${ATTEMPTS_MAX} times: ${spec}`);
  }

  function wasDisturbed({ result }: PoolBuild, signal: AbortSignal): boolean {
    if (result.status === 'cancelled') return signal.aborted;
    return result.status === 'failed' && result.message.includes('was lost during the step');
  }
});

/** Every path of a tree with its type, mode, link target and content. */
function treeOf(directory: string): Map<string, string> {
  const paths = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();
  return new Map(paths.map((path) => [path, describeFile(join(directory, path))]));
}

function describeFile(path: string): string {
  const stat = lstatSync(path);
  const mode = (stat.mode & 0o7777).toString(8);
  if (stat.isSymbolicLink()) return `link ${readlinkSync(path)}`;
  if (stat.isDirectory()) return `directory ${mode}`;
  return `file ${mode} ${stat.nlink} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
}

/** mulberry32 */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
