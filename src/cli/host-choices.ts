import type { PrefixMode } from '../sandbox/prefix-view.ts';
import type { RsyncMode } from '../store/rsync-copier.ts';
import type { StepLimitChoices } from './step-limit-options.ts';

/** What may be left to the machine's defaults. */
export interface HostChoices extends StepLimitChoices {
  /** Default: OBUILDER_FS_STATE_DIR, or /var/lib/obuilder-fs. */
  readonly stateDir?: string | undefined;
  /** `auto:DIR`, `rsync:DIR`, `clone:DIR`, `btrfs:DIR` or `zfs:POOL`; default: `auto`, `store` in the state directory. */
  readonly store?: string | undefined;
  readonly rsyncMode?: RsyncMode | undefined;
  /** The build user, or a range of them such as `705-712`; results belong to the first. */
  readonly uid?: number | string | undefined;
  /** How many build users, from `uid` on (default 1). */
  readonly builders?: number | undefined;
  readonly homePath?: string | undefined;
  readonly prefix?: string | undefined;
  readonly prefixMode?: PrefixMode | undefined;
  readonly scoreboard?: string | undefined;
  readonly baseDir?: string | undefined;
  /** Confine steps with macOS's sandbox-exec (default: no); other systems refuse it. */
  readonly sandboxExec?: boolean | undefined;
}
