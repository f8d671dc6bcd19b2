import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { ImageEnv } from '../fetcher/fetcher.ts';
import { byteStringOf, textOf, type ByteString } from '../spec/byte-string.ts';
import { parseSexp, printHum, sexpOf, type Sexp } from '../spec/sexp.ts';
import type { Env } from './build-context.ts';
import type { StoreStep } from './shared-builds.ts';
import { fromStepId } from './step-id.ts';
import type { StepHost } from './step-host.ts';
import { startAtHome } from './step-start.ts';

/** `(from IMAGE)`: fetches a base image, and keeps its environment beside its tree. */
export function fromStep({ fetcher, sandbox }: StepHost, image: ByteString): StoreStep {
  return {
    id: fromStepId(image).id,
    base: undefined,
    start: () => startAtHome(sandbox, []),
    prepare: () => async (directory, output, signal) => {
      const rootfs = join(directory, 'rootfs');
      const env = await fetcher.fetch(textOf(image), rootfs, output, signal);
      await sandbox.adopt(rootfs);
      await writeFile(join(directory, 'env'), printImageEnv(env));
      return { status: signal.aborted ? 'cancelled' : 'ok' };
    },
  };
}

/**
 * The environment that the base image gave, from any result made from it.
 * @throws {ObuilderError} RESULT_DAMAGED
 */
export async function readImageEnv(result: string): Promise<Env> {
  const path = join(result, 'env');
  try {
    return imageEnvOf(sexpOf(parseSexp(byteStringOf(await readFile(path)))));
  } catch (cause) {
    throw new ObuilderError('RESULT_DAMAGED', `${path}: not the environment of a base image`, {
      hint: `"obuilder-fs delete" this result, then build again: it is fetched anew`,
      cause,
    });
  }
}

function printImageEnv(env: ImageEnv): string {
  const pairs = env.map((pair) => pair.map((text) => byteStringOf(text)));
  return printHum([[byteStringOf('env'), pairs]]);
}

/** `((env ((NAME VALUE)…)))` */
function imageEnvOf(sexp: Sexp): Env {
  const [[name, pairs], ...others] = asList(sexp).map(asList) as [Sexp[], ...Sexp[][]];
  if (name !== 'env' || pairs === undefined || others.length > 0) throw new Error('no (env …)');
  return asList(pairs).map(asPair);
}

function asPair(sexp: Sexp): readonly [ByteString, ByteString] {
  const [name, value, ...others] = asList(sexp);
  if (typeof name === 'string' && typeof value === 'string' && others.length === 0) return [name, value];
  throw new Error('no (NAME VALUE)');
}

function asList(sexp: Sexp): readonly Sexp[] {
  if (typeof sexp === 'string') throw new Error('an atom for a list');
  return sexp;
}
