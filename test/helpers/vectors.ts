import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The golden data of test/vectors/obuilder.json: what OBuilder printed and hashed for these inputs. */
export interface Vectors {
  readonly specs: readonly {
    readonly name: string;
    readonly input: string;
    readonly mach: string;
    readonly pp: string;
    readonly to_string_hum: string;
    readonly ops_pp: readonly string[];
  }[];
  readonly copy_pp_widths: readonly {
    readonly workdir: string;
    readonly dst_length: number;
    readonly heading: string;
    readonly spec_pp: string;
    readonly nested_spec_pp: string;
  }[];
  readonly errors: readonly { readonly name: string; readonly input: string }[];
  readonly manifests: readonly {
    readonly src: string;
    readonly exclude: readonly string[];
    readonly result: { readonly ok: string } | { readonly error: string };
  }[];
  readonly builds: readonly BuildVector[];
  readonly cache_ids: readonly (readonly [name: string, escaped: string])[];
}

export interface BuildVector {
  readonly name: string;
  readonly spec: string;
  readonly image_env: readonly (readonly [string, string])[];
  readonly runs: readonly {
    readonly log: readonly (readonly [kind: string, text: string])[];
    readonly hashed: readonly { readonly pre: string; readonly id: string; readonly kind: string }[];
    readonly result:
      { readonly ok: string; readonly rootfs: readonly VectorEntry[] } | { readonly error: string };
  }[];
}

export interface VectorEntry {
  readonly path: string;
  readonly type: 'dir' | 'file' | 'symlink';
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly mtime?: number;
  readonly sha256?: string;
  readonly target?: string;
}

export const vectors = JSON.parse(
  readFileSync(new URL('../vectors/obuilder.json', import.meta.url), 'utf8'),
) as Vectors;

/** Unpacks the tree that the vectors copy from; answers its directory. */
export function unpackSourceTree(into: string): string {
  execFileSync('tar', ['-xpf', fileURLToPath(new URL('../vectors/src.tar', import.meta.url)), '-C', into]);
  return join(into, 'src');
}
