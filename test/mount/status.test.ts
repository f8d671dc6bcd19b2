import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  anna,
  carl,
  createScratchMount,
  dora,
  mainProgram,
  runAs,
  whyNoMounts,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

interface Counters {
  generation: number;
  operations: number;
  errors: number;
  openFiles: number;
  cachedNodes: number;
}

interface Status {
  mounts: {
    prefix: string;
    state: string;
    entries: { uid: string; isUsable: boolean; problem?: string; counters?: Counters }[];
    others?: Counters;
  }[];
}

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs status', () => {
  let scratch: ScratchMount;
  beforeAll(() => {
    scratch = createScratchMount();
    scratch.mount();
  });
  afterAll(() => scratch.close());

  const status = () => JSON.parse(scratch.run(['status', '--json']).stdout) as Status;
  const mountOf = ({ mounts }: Status) => {
    const mount = mounts.find(({ prefix }) => prefix === scratch.prefix);
    if (mount === undefined) throw new Error('the mount is not in the status');
    return mount;
  };
  const countersOf = (uid: number) =>
    mountOf(status()).entries.find((entry) => entry.uid === String(uid))?.counters;

  it('counts operations, errors, known files and generations of each tree by itself', () => {
    expect(countersOf(anna)).toBeUndefined();
    expect(runAs(anna, ['cat', join(scratch.prefix, 'who')]).stdout).toBe('anna');
    const first = countersOf(anna);
    expect(first).toMatchObject({ generation: 1, errors: 0, openFiles: 0 });
    expect(first?.operations).toBeGreaterThan(0);
    expect(first?.cachedNodes).toBeGreaterThan(0);

    const before = mountOf(status()).others?.errors ?? 0;
    expect(runAs(carl, ['touch', join(scratch.prefix, 'forbidden')]).code).not.toBe(0);
    expect(mountOf(status()).others?.errors).toBeGreaterThan(before);
    expect(countersOf(anna)).toMatchObject({ errors: 0 });

    scratch.point(anna, scratch.path('anna'));
    expect(runAs(anna, ['cat', join(scratch.prefix, 'who')]).code).toBe(0);
    expect(countersOf(anna)).toMatchObject({ generation: 2 });
  });

  it('counts open files while they are open', async () => {
    const holder = spawn('tail', ['-f', join(scratch.prefix, 'who')], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(holder.stdout, 'data');
    expect(mountOf(status()).others?.openFiles).toBe(1);
    holder.kill('SIGKILL');
    await once(holder, 'close');
    expect(mountOf(status()).others?.openFiles).toBe(0);
  });

  it('prints JSON of the schema in docs', () => {
    const path = fileURLToPath(new URL('../../docs/status.schema.json', import.meta.url));
    const schema = JSON.parse(readFileSync(path, 'utf8')) as Schema;
    expect(violations(schema, schema, status())).toEqual([]);
    expect(violations(schema, schema, { mounts: [{ prefix: 1 }] })).not.toEqual([]);
  });

  it('says of each entry what it sees or why it cannot, for people', () => {
    const { stdout } = scratch.run(['status']);
    expect(stdout).toContain(`${anna}    sees ${scratch.path('anna/local')} (generation `);
    expect(stdout).toMatch(new RegExp(`${dora} +gets EACCES: /nowhere — the link leads nowhere`));
  });

  it('--watch shows it again and again until Ctrl-C', async () => {
    const args = [mainProgram, 'status', '--watch', '--json', `--state-dir=${scratch.stateDir}`];
    const watch = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    for await (const chunk of watch.stdout) {
      text += String(chunk);
      if (text.split('"mounts"').length > 2) break;
    }
    watch.kill('SIGINT');
    await once(watch, 'exit');
    expect(text.split('"mounts"').length).toBeGreaterThan(2);
  });

  it('tells a mount process that does not answer from one that is gone, and hangs on neither', () => {
    const pid = scratch.servingPid();
    process.kill(pid, 'SIGSTOP');
    try {
      expect(mountOf(status()).state).toBe('silent');
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(mountOf(status()).state).toBe('serving');
    process.kill(pid, 'SIGKILL');
    expect(mountOf(status()).state).toBe('dead');
  });
});

/** What is used of JSON Schema in docs/status.schema.json. */
interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string;
  enum?: unknown[];
  required?: string[];
  properties?: Record<string, Schema>;
  items?: Schema;
}

function violations(root: Schema, schema: Schema, value: unknown, at = '$'): string[] {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split('/').at(-1) ?? '';
    return violations(root, root.$defs?.[name] ?? {}, value, at);
  }
  if (schema.enum !== undefined) return schema.enum.includes(value) ? [] : [`${at}: ${String(value)}`];
  switch (schema.type) {
    case 'object': {
      const object = value as Record<string, unknown>;
      const missing = (schema.required ?? [])
        .filter((key) => !(key in object))
        .map((key) => `${at}.${key} is missing`);
      return Object.entries(object).reduce((found, [key, item]) => {
        const property = schema.properties?.[key];
        const wrong =
          property === undefined
            ? [`${at}.${key} is unknown`]
            : violations(root, property, item, `${at}.${key}`);
        return [...found, ...wrong];
      }, missing);
    }
    case 'array':
      return (value as unknown[]).flatMap((item, i) =>
        violations(root, schema.items ?? {}, item, `${at}[${i}]`),
      );
    case 'integer':
      return Number.isInteger(value) ? [] : [`${at} is no integer`];
    default:
      return typeof value === schema.type ? [] : [`${at} is no ${schema.type ?? 'value'}`];
  }
}
