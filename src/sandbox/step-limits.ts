/** What a step may take; a field that is missing limits nothing. */
export interface StepLimits {
  readonly timeoutMs?: number | undefined;
  readonly outputBytesMax?: number | undefined;
  /** Of all its processes together where there are cgroups, of each one elsewhere. */
  readonly memoryBytesMax?: number | undefined;
  readonly processesMax?: number | undefined;
}

/** The limits that are ours to keep: how long a step takes and how much it says. */
export interface LimitWatch {
  /** To be given all output; passes on what the limit allows. */
  readonly output: (chunk: Uint8Array) => void;
  /** Fires when the step must be ended. */
  readonly exceeded: AbortSignal;
  /** Which limit that was, in words for the step's failure. */
  why(): string | undefined;
  /** Stops the clock. Idempotent. */
  close(): void;
}

/** The longest that a timer can wait. */
const timerMsMax = 2 ** 31 - 1;

/** Begins to count now. The log's last line says which limit was exceeded. */
export function watchLimits(
  { timeoutMs, outputBytesMax = Infinity }: StepLimits,
  output: (chunk: Uint8Array) => void,
): LimitWatch {
  const exceeded = new AbortController();
  let why: string | undefined;
  let bytesLeft = outputBytesMax;

  function exceed(limit: string): void {
    if (why !== undefined) return;
    why = limit;
    output(Buffer.from(`\nobuilder-fs: the step was stopped: ${limit}\n`));
    exceeded.abort();
  }

  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(
          () => exceed(`it took longer than --step-timeout=${durationFlag(timeoutMs)}`),
          Math.min(timeoutMs, timerMsMax),
        );
  return {
    output(chunk) {
      if (why !== undefined) return; // what was on its way
      if (chunk.length <= bytesLeft) {
        bytesLeft -= chunk.length;
        output(chunk);
        return;
      }
      output(chunk.subarray(0, bytesLeft));
      exceed(`it wrote more than --max-output=${sizeFlag(outputBytesMax)}`);
    },
    exceeded: exceeded.signal,
    why: () => why,
    close: () => clearTimeout(timer),
  };
}

/** In the largest unit that needs no fraction. */
function durationFlag(milliseconds: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
  ] as const;
  const [unit, ms] = units.find(([, ms]) => milliseconds % ms === 0) ?? ['s', 1000];
  return `${milliseconds / ms}${unit}`;
}

/** In the largest unit that needs no fraction. */
export function sizeFlag(bytes: number): string {
  const units = ['', 'K', 'M', 'G', 'T'];
  let unit = 0;
  while (bytes >= 1024 && bytes % 1024 === 0 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${bytes}${units[unit]}`;
}

/**
 * The argv that runs `argv` in these cgroups and with the limits that the kernel keeps for a single process or a single user. It has
 * joined the cgroups before anything of the step's runs. The variables that bash adds on its own are taken away again.
 */
export function limitedCommand(
  { memoryBytesMax, processesMax }: StepLimits,
  cgroups: readonly string[],
  argv: readonly string[],
): string[] {
  const script = [
    'for group in "${@:2:$1}"; do echo 0 >"$group/cgroup.procs" || exit; done',
    'shift "$(($1 + 1))"',
    'ulimit -c 0',
    // Refused only where the limit is a lower one already.
    ...(processesMax === undefined ? [] : [`ulimit -u ${processesMax} 2>/dev/null || :`]),
    // macOS knows no such limit: there it stays without.
    ...(memoryBytesMax === undefined
      ? []
      : [`ulimit -d ${Math.ceil(memoryBytesMax / 1024)} 2>/dev/null || :`]),
    'unset SHLVL PWD OLDPWD',
    'exec "$@"',
  ].join('\n');
  const bash = ['/bin/bash', '--norc', '--noprofile', '-c', script, 'obuilder-fs-limits'];
  return [...bash, String(cgroups.length), ...cgroups, ...argv];
}
