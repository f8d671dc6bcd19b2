import type { ByteString } from './byte-string.ts';

/** An OBuilder build script: one stage, with the nested builds it may copy from. */
export interface Spec {
  readonly builds: readonly { readonly name: ByteString; readonly spec: Spec }[];
  readonly from: ByteString;
  readonly ops: readonly Op[];
}

export type Op =
  | { readonly op: 'comment'; readonly text: ByteString }
  | { readonly op: 'workdir'; readonly path: ByteString }
  | { readonly op: 'shell'; readonly argv: readonly ByteString[] }
  | ({ readonly op: 'run' } & RunOp)
  | ({ readonly op: 'copy' } & CopyOp)
  | { readonly op: 'user'; readonly user: User }
  | { readonly op: 'env'; readonly name: ByteString; readonly value: ByteString };

export interface RunOp {
  readonly cache: readonly CacheMount[];
  readonly network: readonly ByteString[];
  readonly secrets: readonly SecretMount[];
  readonly shell: ByteString;
}

export interface CopyOp {
  /** The build context, or the name of an earlier build in scope. */
  readonly from: { readonly kind: 'context' } | { readonly kind: 'build'; readonly name: ByteString };
  readonly src: readonly ByteString[];
  readonly dst: ByteString;
  /** Base names left out at every level below a source directory. */
  readonly exclude: readonly ByteString[];
}

export type User =
  | { readonly kind: 'unix'; readonly uid: number; readonly gid: number }
  | { readonly kind: 'windows'; readonly name: ByteString };

export interface CacheMount {
  readonly id: ByteString;
  readonly target: ByteString;
  /** Only the Dockerfile conversion uses it. */
  readonly buildkitOptions: readonly (readonly [ByteString, ByteString])[];
}

export interface SecretMount {
  readonly id: ByteString;
  readonly target: ByteString;
  /** Only the Dockerfile conversion uses it. */
  readonly buildkitOptions: readonly (readonly [ByteString, ByteString])[];
}
